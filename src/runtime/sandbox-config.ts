/**
 * A pod sandbox as its client asked for it: decoded and checked, nothing resolved yet. JSON-safe, because records keep it; key order is
 * fixed by the decoder, because identical requests are told by their JSON.
 *
 * Source: CRI `PodSandboxConfig`.
 */
export interface SandboxConfig {
  readonly metadata: SandboxMetadata;
  /** Empty only on the host's network: the pod then has the node's name. */
  readonly hostname: string;
  /** Absolute host directory of the containers' logs; empty: no logs. */
  readonly logDirectory: string;
  /** Undefined: the host's resolv.conf is copied. Present and empty: an empty file. */
  readonly dns: DnsConfig | undefined;
  readonly portMappings: readonly SandboxPortMapping[];
  readonly labels: StringMap;
  readonly annotations: StringMap;
  /** A path (cgroupfs) or slice (systemd) that the client made; empty: ours. */
  readonly cgroupParent: string;
  readonly sysctls: StringMap;
  readonly namespaces: NamespaceModes;
  /** Some container of the pod will be privileged. */
  readonly privileged: boolean;
  readonly seccomp: SecurityProfile;
  readonly apparmor: SecurityProfile;
  readonly selinux: SelinuxOptions | undefined;
  readonly runAsUser: number | undefined;
  readonly runAsGroup: number | undefined;
  readonly supplementalGroups: readonly number[];
  readonly supplementalGroupsPolicy: SupplementalGroupsPolicy;
  readonly readonlyRootfs: boolean;
  /** RuntimeClass `overhead.podFixed`; sizes a microVM. */
  readonly overhead: Resources | undefined;
  /** Sum over the pod's containers; sizes a microVM. */
  readonly resources: Resources | undefined;
}

export type StringMap = Readonly<Record<string, string>>;

export interface SandboxMetadata {
  readonly name: string;
  readonly uid: string;
  readonly namespace: string;
  readonly attempt: number;
}

export interface DnsConfig {
  readonly servers: readonly string[];
  readonly searches: readonly string[];
  readonly options: readonly string[];
}

export interface SandboxPortMapping {
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly containerPort: number;
  /** 0: the port is only declared. */
  readonly hostPort: number;
  readonly hostIp: string;
}

/** Whose namespace a process is in: the pod's, its container's own, the node's, or that of another container of the pod. */
export type NamespaceMode = "pod" | "container" | "node" | "target";

export interface NamespaceModes {
  readonly network: "pod" | "node";
  readonly pid: NamespaceMode;
  readonly ipc: "pod" | "node";
  /** Container whose pid namespace is joined; set exactly when `pid` is `target`. */
  readonly targetId: string;
  /** Undefined: the host's user namespace. */
  readonly user: UserNamespace | undefined;
}

/** A pod's user namespace: one line each way, as the kubelet sends it. */
export interface UserNamespace {
  readonly uids: IdMapping;
  readonly gids: IdMapping;
}

export interface IdMapping {
  readonly containerId: number;
  readonly hostId: number;
  readonly length: number;
}

/** seccomp or AppArmor. `none` is a field that was not sent: for seccomp unconfined, for AppArmor the runtime's default. */
export type SecurityProfile =
  | { readonly type: "none" }
  | { readonly type: "runtime-default" }
  | { readonly type: "unconfined" }
  /** seccomp: absolute path of a JSON file on the host. AppArmor: name of a loaded profile. */
  | { readonly type: "localhost"; readonly reference: string };

export interface SelinuxOptions {
  readonly user: string;
  readonly role: string;
  readonly type: string;
  readonly level: string;
}

/** Whether the groups that the image's /etc/group gives the user are added to those listed. */
export type SupplementalGroupsPolicy = "merge" | "strict";

/** Limits; an absent one is unset (CRI's zero). Sizes in bytes, CPU times in microseconds. */
export interface Resources {
  readonly cpuPeriodUs?: number;
  /** -1: no limit. */
  readonly cpuQuotaUs?: number;
  readonly cpuShares?: number;
  readonly memoryLimitBytes?: number;
  /** Memory and swap together, as OCI counts it. */
  readonly memorySwapLimitBytes?: number;
  readonly oomScoreAdj?: number;
  readonly cpusetCpus?: string;
  readonly cpusetMems?: string;
  readonly hugepageLimits?: readonly HugepageLimit[];
  /** Raw cgroup v2 keys. */
  readonly unified?: StringMap;
}

export interface HugepageLimit {
  /** As the kernel spells it: `2MB`. */
  readonly pageSize: string;
  readonly limitBytes: number;
}
