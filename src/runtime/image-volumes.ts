import { PodServiceService } from "../../api/gen/aurae/pod/v0/pod.ts";
import { AgentError } from "../agent/errors.ts";
import { messageOf } from "../lib/coded-error.ts";
import type { ContainerRecord } from "./container.ts";
import type { ContainerConfig } from "./container-config.ts";
import { RuntimeError } from "./errors.ts";
import type { Images } from "./ports.ts";
import type { Realm, Wait } from "./realm.ts";
import type { Container } from "./runtime.ts";

/** An image that a container has as a volume, as it was found when the container was made: a tag may have moved since. JSON-safe. */
export interface ImageVolume {
  /** Its place in `config.mounts`. */
  readonly index: number;
  readonly imageId: string;
}

/** The images of a container's volumes. Throws `ERR_IMAGE_VOLUME` for one that is not on this node. */
export function findImageVolumes(images: Images, { mounts }: ContainerConfig): readonly ImageVolume[] {
  return mounts.flatMap(({ source }, index) => {
    if (source.type === "host") return [];
    const image = images.find(source.image);
    if (image === undefined) throw imageVolumeError(index, "image", `image '${source.image}' is not on this node: pull it first`);
    return [{ index, imageId: image.id }];
  });
}

/** Mounts them where the container's spec will bind them from. The container must be prepared; taken back with it. */
export async function mountImageVolumes(images: Images, realm: Realm, container: Container, wait: Wait): Promise<void> {
  const { pod, record } = container;
  for (const volume of record.imageVolumes ?? []) {
    const { index, imageId } = volume;
    const source = record.config.mounts[index]?.source;
    if (source?.type !== "image") throw new TypeError(`mount ${index} of container ${record.id} is no image`);
    try {
      const image = images.find(imageId);
      if (image === undefined) throw new Error(`image ${imageId} was removed meanwhile: pull it again`);
      const lowerPaths = [...(await realm.mountLayers(volumeOwner(record.id, index), image, wait))];
      const mountPath = realm.imageVolumePath(container, index);
      const request = { containerId: record.id, lowerPaths, subPath: source.subPath, mountPath };
      await pod.agent.call(PodServiceService.mountImage, request, wait);
    } catch (error) {
      // A guest that is gone says nothing about the image.
      if (wait.signal.aborted || (error instanceof AgentError && error.fact.code !== "ERR_AGENT_REFUSED")) throw error;
      throw imageVolumeError(index, source.subPath === "" ? "image" : "image_sub_path", messageOf(error), error);
    }
  }
}

/** Who claims layers on behalf of a container, with the image: its root file system, and each of its image volumes. */
export function layerClaimsOf({ id, imageId, imageVolumes = [] }: ContainerRecord): readonly (readonly [owner: string, imageId: string])[] {
  return [[id, imageId], ...imageVolumes.map((volume) => [volumeOwner(id, volume.index), volume.imageId] as const)];
}

function volumeOwner(containerId: string, index: number): string {
  return `${containerId}/${index}`;
}

function imageVolumeError(index: number, part: string, problem: string, cause?: unknown): RuntimeError {
  const field = `config.mounts[${index}].${part}`;
  return new RuntimeError({ code: "ERR_IMAGE_VOLUME", field }, `${field}: ${problem}`, { cause });
}
