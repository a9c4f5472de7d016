import { Image, type StreamImagesRequest, type StreamImagesResponse } from "../../../api/gen/cri/v1/api.ts";
import { inBatches } from "../batches.ts";
import type { Call } from "../call.ts";
import { imagesNow } from "./list-images.ts";

export async function* streamImages(request: StreamImagesRequest, call: Call): AsyncGenerator<StreamImagesResponse> {
  for (const images of inBatches(imagesNow(request.filter, call), Image)) yield { images };
}
