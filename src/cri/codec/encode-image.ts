import { createHash } from "node:crypto";

import type { FilesystemUsage as CriFilesystemUsage, Image as CriImage } from "../../../api/gen/cri/v1/api.ts";
import type { FilesystemUsage, Image } from "../../runtime/ports.ts";

export function encodeImage(image: Image): CriImage {
  // CRI reports the part before the colon: a number as uid, anything else as the name.
  const user = image.config.user.split(":")[0] ?? "";
  const numeric = /^\d+$/.test(user);
  return {
    id: image.id,
    repoTags: [...image.repoTags],
    repoDigests: [...image.repoDigests],
    size: BigInt(image.sizeBytes),
    uid: numeric ? { value: BigInt(user) } : undefined,
    username: numeric ? "" : user,
    spec: undefined,
    pinned: image.pinned,
  };
}

/** What other runtimes' users read: the image's configuration under `imageSpec`, and the name of all its layers together. */
export function encodeImageInfo(image: Image): { [key: string]: string } {
  const layers = image.layers.map(({ diffId, blobPath }) => ({ diffId, blobPath }));
  return { info: JSON.stringify({ chainID: chainId(image.layers.map(({ diffId }) => diffId)), imageSpec: image.rawConfig, layers }) };
}

/** Of layers from the lowest to the highest; empty without any. Source: OCI image specification, "Layer ChainID". */
export function chainId(diffIds: readonly string[]): string {
  const join = (below: string, diffId: string) => `sha256:${createHash("sha256").update(`${below} ${diffId}`).digest("hex")}`;
  return diffIds.length === 0 ? "" : diffIds.reduce(join);
}

export function encodeFilesystem(usage: FilesystemUsage): CriFilesystemUsage {
  return {
    timestamp: usage.timestampNs,
    fsId: { mountpoint: usage.mountpoint },
    usedBytes: { value: usage.usedBytes },
    inodesUsed: { value: usage.inodesUsed },
  };
}
