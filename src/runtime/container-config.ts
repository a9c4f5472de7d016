import type { DeviceRequest } from "../host/devices.ts";
import type {
  IdMapping,
  NamespaceModes,
  Resources,
  SecurityProfile,
  SelinuxOptions,
  StringMap,
  SupplementalGroupsPolicy,
} from "./sandbox-config.ts";

/**
 * A container as its client asked for it: decoded and checked, nothing resolved yet. JSON-safe like `SandboxConfig`.
 *
 * Source: CRI `ContainerConfig`.
 */
export interface ContainerConfig {
  readonly metadata: ContainerMetadata;
  /** What the client sent to find the image by: usually its id. */
  readonly image: string;
  /** What the user wrote; reported in the status. Falls back to `image`. */
  readonly userSpecifiedImage: string;
  /** Set: the image's entrypoint and cmd are both ignored. */
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly workingDir: string;
  readonly env: readonly EnvVar[];
  readonly mounts: readonly MountRequest[];
  readonly devices: readonly DeviceRequest[];
  /** Fully qualified CDI device names. */
  readonly cdiDevices: readonly string[];
  readonly labels: StringMap;
  readonly annotations: StringMap;
  /** Relative to the sandbox's log directory; empty: no log. */
  readonly logPath: string;
  readonly stdin: boolean;
  readonly stdinOnce: boolean;
  readonly tty: boolean;
  /** Signal number; 0: the image's, else SIGTERM. */
  readonly stopSignal: number;
  readonly resources: Resources;
  readonly security: ContainerSecurity;
}

export interface ContainerMetadata {
  readonly name: string;
  readonly attempt: number;
}

/** `base64` when the value is not valid UTF-8: CRI sends bytes. */
export type EnvVar = { readonly key: string; readonly value: string } | { readonly key: string; readonly base64: string };

export interface MountRequest {
  readonly containerPath: string;
  readonly source: MountSource;
  /** "no", or the mount alone, or everything below it too. */
  readonly readonly: "no" | "yes" | "recursive";
  readonly propagation: MountPropagation;
  readonly selinuxRelabel: boolean;
  /** Some of noexec, nodev and nosuid. */
  readonly options: readonly string[];
  /** Identity mapping of an idmapped mount; empty: none. */
  readonly uidMappings: readonly IdMapping[];
  readonly gidMappings: readonly IdMapping[];
}

export type MountSource =
  | { readonly type: "host"; readonly path: string }
  /** An image as a volume; `subPath` lies inside it. */
  | { readonly type: "image"; readonly image: string; readonly subPath: string };

export type MountPropagation = "private" | "host-to-container" | "bidirectional";

export interface ContainerSecurity {
  readonly privileged: boolean;
  readonly capabilities: CapabilityChanges;
  readonly namespaces: NamespaceModes;
  readonly selinux: SelinuxOptions | undefined;
  readonly user: UserRequest;
  readonly supplementalGroups: readonly number[];
  readonly supplementalGroupsPolicy: SupplementalGroupsPolicy;
  readonly readonlyRootfs: boolean;
  readonly noNewPrivs: boolean;
  /** Exactly as sent: an empty list is no masked path, not the default ones. */
  readonly maskedPaths: readonly string[];
  readonly readonlyPaths: readonly string[];
  readonly seccomp: SecurityProfile;
  readonly apparmor: SecurityProfile;
}

/** Names with their CAP_ prefix, or ALL. */
export interface CapabilityChanges {
  readonly add: readonly string[];
  readonly drop: readonly string[];
  readonly addAmbient: readonly string[];
}

/** Who the process runs as, before the image is asked. */
export type UserRequest =
  | { readonly type: "image"; readonly gid: undefined }
  | { readonly type: "uid"; readonly uid: number; readonly gid: number | undefined }
  | { readonly type: "username"; readonly username: string; readonly gid: number | undefined };
