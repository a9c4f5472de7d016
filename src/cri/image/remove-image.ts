import type { RemoveImageRequest, RemoveImageResponse } from "../../../api/gen/cri/v1/api.ts";
import type { Call } from "../call.ts";
import { requireId } from "../codec/fields.ts";

export async function removeImage(request: RemoveImageRequest, call: Call): Promise<RemoveImageResponse> {
  await call.runtime.images.remove(requireId(request.image?.image, "image.image"));
  return {};
}
