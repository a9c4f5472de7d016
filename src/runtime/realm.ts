import type { DeviceNode, DeviceRequest } from "../host/devices.ts";
import { FlatRealm } from "./flat-realm.ts";
import { readySandbox } from "./lookup.ts";
import { MicrovmRealm } from "./microvm-realm.ts";
import type { HostFacts, MountSource } from "./oci/input.ts";
import type { OciSpec } from "./oci/types.ts";
import type { NamespacePaths } from "./pod.ts";
import type { PodFilePaths } from "./pod-directory.ts";
import type { Image } from "./ports.ts";
import type { Container, Pod, Runtime } from "./runtime.ts";

export interface Wait {
  readonly signal: AbortSignal;
  readonly requestId?: string | undefined;
}

/**
 * The kernel that a pod's containers run on, as the node's for a flat pod or the guest's for a microVM: its facts, where it sees the pod's
 * files, and what the host must lend it for one container. Every path here is as the auraed that runs the containers sees it.
 */
export interface Realm {
  readonly facts: HostFacts;
  readonly namespaces: NamespacePaths;
  readonly files: PodFilePaths;
  rootfsPath(container: Container): string;
  /** Directory of the overlay's upper and work directories. */
  scratchPath(container: Container): string;
  /** `linux.cgroupsPath` of the OCI specification. */
  cgroupsPath(container: Container): string;
  /** The nodes that a requested device stands for. Throws for a path that names none. */
  device(request: DeviceRequest): Promise<readonly DeviceNode[]>;
  /** What a privileged container gets below /dev. */
  devices(): Promise<readonly DeviceNode[]>;
  /** Makes the image's layers available on behalf of `owner`; their directories, uppermost first. */
  mountLayers(owner: string, image: Image, wait: Wait): Promise<readonly string[]>;
  /** Where the image of `config.mounts[index]` is mounted before it is bound. */
  imageVolumePath(container: Container, index: number): string;
  /** Makes the sources of the container's mounts available; in the order of `config.mounts`. */
  mountSources(container: Container, wait: Wait): Promise<readonly MountSource[]>;
  /** What must be on the host before auraed creates the container. */
  beforeCreate(container: Container, spec: OciSpec, wait: Wait): Promise<void>;
  /** Takes back what was lent to a container that auraed has deleted. Nothing lent is success. */
  takeBack(container: Container, wait: Wait): Promise<void>;
}

/** Of a READY pod. */
export function realmOf(runtime: Runtime, pod: Pod): Realm {
  const { guest, namespaces } = readySandbox(pod);
  return guest === undefined ? new FlatRealm(runtime, pod, namespaces) : new MicrovmRealm(runtime, pod, guest);
}
