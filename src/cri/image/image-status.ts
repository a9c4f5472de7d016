import type { ImageStatusRequest, ImageStatusResponse } from "../../../api/gen/cri/v1/api.ts";
import type { Call } from "../call.ts";
import { encodeImage, encodeImageInfo } from "../codec/encode-image.ts";
import { requireId } from "../codec/fields.ts";

/** An image that is not there is an answer without an image, not an error. */
export async function imageStatus(request: ImageStatusRequest, call: Call): Promise<ImageStatusResponse> {
  const image = call.runtime.images.find(requireId(request.image?.image, "image.image"));
  if (image === undefined) return { image: undefined, info: {} };
  return { image: encodeImage(image), info: request.verbose ? encodeImageInfo(image) : {} };
}
