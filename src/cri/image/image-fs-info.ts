import type { ImageFsInfoRequest, ImageFsInfoResponse } from "../../../api/gen/cri/v1/api.ts";
import type { Call } from "../call.ts";
import { encodeFilesystem } from "../codec/encode-image.ts";

/** Layers and writable layers lie on one file system: the second list is left empty, which says so. */
export async function imageFsInfo(_request: ImageFsInfoRequest, call: Call): Promise<ImageFsInfoResponse> {
  return { imageFilesystems: [encodeFilesystem(await call.runtime.images.fsUsage())], containerFilesystems: [] };
}
