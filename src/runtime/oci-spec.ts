import type { ContainerConfig } from "./container-config.ts";
import type { ContainerUser } from "./container.ts";
import { ociLinux } from "./oci-linux.ts";
import { ociMounts } from "./oci-mounts.ts";
import { ociProcess } from "./oci-process.ts";
import type { OciDevice, OciSeccomp, OciSpec } from "./oci-types.ts";
import type { PodFilePaths } from "./pod-directory.ts";
import type { NamespacePaths } from "./pod.ts";
import type { ImageConfig } from "./ports.ts";

/** What of the machine decides how a spec is written. Read once at start. */
export interface HostFacts {
  readonly cgroupVersion: "v1" | "hybrid" | "v2";
  /** AppArmor is on. */
  readonly apparmor: boolean;
  /** A limit on memory and swap together can be set. */
  readonly swapAccounting: boolean;
  /** The daemon's bounding set: no container can have more. */
  readonly capabilities: readonly string[];
  /** Lowest score this daemon may give: its own, unless it holds CAP_SYS_RESOURCE. */
  readonly minOomScoreAdj: number;
}

/** Everything a container's OCI spec is made of. The outside world has been looked at already: the builder is pure. */
export interface SpecInput {
  readonly containerId: string;
  readonly container: ContainerConfig;
  readonly image: ImageConfig;
  readonly user: ContainerUser;
  readonly rootfsPath: string;
  readonly cgroupsPath: string;
  readonly hostname: string;
  readonly podNamespaces: NamespacePaths;
  /** pid namespace of the target container; empty unless the mode is `target`. */
  readonly targetPidPath: string;
  readonly hostIpc: boolean;
  readonly files: PodFilePaths;
  /** Host path of each of `container.mounts`, in their order. */
  readonly mountSources: readonly string[];
  readonly volumes: readonly ImageVolume[];
  readonly devices: readonly HostDevice[];
  /** Undefined: unconfined. */
  readonly seccomp: OciSeccomp | undefined;
  readonly host: HostFacts;
}

export interface ImageVolume {
  readonly containerPath: string;
  readonly hostPath: string;
}

/** A device node of the host as it is to appear in the container. */
export interface HostDevice extends OciDevice {
  /** Some of r, w and m. */
  readonly permissions: string;
}

const OCI_VERSION = "1.2.0";

/** Throws `ERR_INVALID` with the request's field for what no spec can express. */
export function buildOciSpec(input: SpecInput): OciSpec {
  return {
    ociVersion: OCI_VERSION,
    process: ociProcess(input),
    root: { path: input.rootfsPath, readonly: input.container.security.readonlyRootfs },
    mounts: ociMounts(input),
    annotations: {},
    linux: ociLinux(input),
  };
}
