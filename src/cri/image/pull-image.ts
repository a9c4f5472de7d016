import type { PullImageRequest, PullImageResponse } from "../../../api/gen/cri/v1/api.ts";
import type { Call } from "../call.ts";
import { decodeCredentials } from "../codec/auth-config.ts";
import { requireId } from "../codec/fields.ts";

export async function pullImage(request: PullImageRequest, call: Call): Promise<PullImageResponse> {
  const reference = requireId(request.image?.image, "image.image");
  const credentials = decodeCredentials(request.auth);
  const imageRef = await call.runtime.images.pull({ reference, credentials, requestId: call.requestId }, call);
  return { imageRef };
}
