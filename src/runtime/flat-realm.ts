import { containerCgroup } from "../host/cgroup-paths.ts";
import { type DeviceNode, type DeviceRequest, listDevices, readDevice } from "../host/devices.ts";
import { hostMountSources } from "./mount-sources.ts";
import { withCdi } from "./oci/cdi-edits.ts";
import type { HostFacts, MountSource } from "./oci/input.ts";
import type { NamespacePaths } from "./pod.ts";
import { type PodFilePaths, podFilePaths } from "./pod-directory.ts";
import type { Image } from "./ports.ts";
import type { Realm, Wait } from "./realm.ts";
import { type Container, containerScratchDir, containerStateDir, type Pod, type Runtime } from "./runtime.ts";

/** The node's own kernel. */
export class FlatRealm implements Realm {
  readonly facts: HostFacts;
  readonly namespaces: NamespacePaths;
  readonly files: PodFilePaths;
  readonly #runtime: Runtime;

  constructor(runtime: Runtime, pod: Pod, namespaces: NamespacePaths) {
    this.#runtime = runtime;
    this.facts = runtime.options.hostFacts;
    this.namespaces = namespaces;
    this.files = podFilePaths(runtime.options.stateDir, pod.id);
  }

  rootfsPath({ record }: Container): string {
    return `${containerStateDir(this.#runtime.options.stateDir, record)}/rootfs`;
  }

  scratchPath({ record }: Container): string {
    return containerScratchDir(this.#runtime.options.rootDir, record);
  }

  cgroupsPath({ id, pod }: Container): string {
    return containerCgroup(pod.record.cgroup, id).cgroupsPath;
  }

  device(request: DeviceRequest): Promise<readonly DeviceNode[]> {
    return readDevice(request);
  }

  devices(): Promise<readonly DeviceNode[]> {
    return listDevices("/dev");
  }

  mountLayers(owner: string, image: Image, wait: Wait): Promise<readonly string[]> {
    return this.#runtime.images.mountLayers(image.id, owner, wait);
  }

  imageVolumePath({ record }: Container, index: number): string {
    return `${containerStateDir(this.#runtime.options.stateDir, record)}/image-${index}`;
  }

  async mountSources(container: Container): Promise<readonly MountSource[]> {
    const { config, cdi } = container.record;
    const sources = await hostMountSources(withCdi(config, cdi));
    // Auraed mounts an image with the pod's ids by itself.
    return sources.map((source, index) => ({
      path: source ?? this.imageVolumePath(container, index),
      mapped: source === undefined,
      guarded: false,
    }));
  }

  async beforeCreate(): Promise<void> {
    // The pod's auraed is on the host: it writes the bundle and opens the log file itself.
  }

  async takeBack(): Promise<void> {
    // Nothing was lent: the container saw the host's own files.
  }
}
