import type { DeviceNode } from "../../host/devices.ts";
import type { ContainerUser } from "../container.ts";
import type { ContainerConfig } from "../container-config.ts";
import type { NamespacePaths } from "../pod.ts";
import type { CdiEdits, ImageConfig } from "../ports.ts";
import type { SandboxConfig } from "../sandbox-config.ts";
import type { OciRlimit } from "./types.ts";

/** Everything the OCI spec of a container depends on. All paths are as the auraed that runs the container sees them. */
export interface OciSpecInput {
  readonly sandbox: SandboxConfig;
  /** With what CDI devices add to it. */
  readonly container: ContainerConfig;
  readonly image: ImageConfig;
  /** As looked up in the container's own root filesystem. */
  readonly user: ContainerUser;
  /** The pod's name as its processes see it; the node's on the host's network. */
  readonly hostname: string;
  readonly rootfsPath: string;
  readonly namespaces: NamespacePaths;
  /** pid namespace of the target container; needed exactly when the container's pid mode is `target`. */
  readonly targetPidPath: string | undefined;
  /** In the form that the cgroup driver takes. */
  readonly cgroupsPath: string;
  readonly podFiles: { readonly hosts: string; readonly resolvConf: string; readonly hostname: string; readonly shm: string };
  /** For each of `container.mounts`, in order. */
  readonly mountSources: readonly MountSource[];
  /** Volumes that the image declares, each with its seeded directory. */
  readonly imageVolumes: readonly { readonly containerPath: string; readonly sourcePath: string }[];
  /** The container's devices, those of CDI among them, directories already expanded. */
  readonly devices: readonly DeviceNode[];
  /** Every device node of the host's /dev; used only when the container is privileged. */
  readonly hostDevices: readonly DeviceNode[];
  /** What CDI devices change beside environment, bind mounts, devices and groups; those are in the fields above. */
  readonly cdi: CdiEdits | undefined;
  /** Text of the profile file; needed exactly when seccomp is of type `localhost`. */
  readonly seccompProfile: string | undefined;
  readonly host: HostFacts;
}

/** The directory or file that a mount shows, and what was seen to before the container's kernel mounts it. */
export interface MountSource {
  /** Links followed. */
  readonly path: string;
  /** Its ids are mapped where the mount asks for it. */
  readonly mapped: boolean;
  /** It is kept from changes where it comes from, mount by mount: read-only here would take in what is writable below it. */
  readonly guarded: boolean;
}

/** What the kernel that runs the container offers. */
export interface HostFacts {
  /** As `process.arch` spells it. */
  readonly arch: string;
  /** Of the hierarchy that holds the memory controller: hybrid is 1. */
  readonly cgroupVersion: 1 | 2;
  /** The memory controller limits swap. */
  readonly swapAccounting: boolean;
  /** Sizes that the hugetlb controller can limit, such as `2MB`; empty without the controller. */
  readonly hugepageSizes: readonly string[];
  readonly seccomp: boolean;
  /** Undefined: the kernel has no AppArmor. `defaultProfile` is the loaded profile that stands for the runtime's default; empty: none. */
  readonly apparmor: { readonly defaultProfile: string } | undefined;
  /** The daemon's bounding set, by name: no container can have more. */
  readonly capabilities: readonly string[];
  /** The lowest oom_score_adj the daemon may give: -1000 with CAP_SYS_RESOURCE, else its own. */
  readonly oomScoreAdjFloor: number;
  readonly rlimits: readonly OciRlimit[];
}
