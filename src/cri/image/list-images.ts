import type { Image, ImageFilter, ListImagesRequest, ListImagesResponse } from "../../../api/gen/cri/v1/api.ts";
import type { Call } from "../call.ts";
import { encodeImage } from "../codec/encode-image.ts";

export async function listImages(request: ListImagesRequest, call: Call): Promise<ListImagesResponse> {
  return { images: imagesNow(request.filter, call) };
}

export function imagesNow(filter: ImageFilter | undefined, call: Call): Image[] {
  const { images } = call.runtime;
  const reference = filter?.image?.image ?? "";
  if (reference === "") return images.list().map(encodeImage);
  const image = images.find(reference);
  return image === undefined ? [] : [encodeImage(image)];
}
