import type { ListImagesRequest, ListImagesResponse } from "../../../api/gen/cri/v1/api.ts";
import type { Call } from "../call.ts";
import { encodeImage } from "../codec/encode-image.ts";

export async function listImages(request: ListImagesRequest, call: Call): Promise<ListImagesResponse> {
  const { images } = call.runtime;
  const reference = request.filter?.image?.image ?? "";
  if (reference === "") return { images: images.list().map(encodeImage) };
  const image = images.find(reference);
  return { images: image === undefined ? [] : [encodeImage(image)] };
}
