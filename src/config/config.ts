/**
 * The complete configuration: every key present, defaults filled in, durations in milliseconds, sizes in bytes, paths absolute. Rooms
 * declare the options that they need themselves; only the composition root knows this type.
 *
 * What the keys mean to an operator, and their defaults, stand in `schema.ts`.
 */
export interface Config {
  /** Directory of what survives a reboot: database, images, pod records. */
  readonly root: string;
  /** Directory of what does not: sockets, pinned namespaces. */
  readonly state: string;
  /** Absolute path of the CRI socket (`unix://` taken off). */
  readonly listen: string;
  readonly log: LogConfig;
  readonly cni: CniConfig;
  readonly registry: RegistryConfig;
  readonly image: ImageConfig;
  readonly vm: VmConfig;
  readonly oci: OciConfig;
  readonly placement: PlacementConfig;
  readonly cgroup: CgroupConfig;
  readonly cdi: CdiConfig;
  readonly events: EventsConfig;
  readonly auraed: AuraedConfig;
  readonly streaming: StreamingConfig;
  readonly metrics: MetricsConfig;
}

export interface LogConfig {
  readonly level: "error" | "warn" | "info" | "debug";
  readonly format: "json" | "console";
}

export interface CniConfig {
  readonly confDir: string;
  /** Searched in order; never empty. */
  readonly binDirs: readonly string[];
}

export interface RegistryConfig {
  /** Directory with a `HOST[:PORT]/hosts.toml` per registry; "" for none. */
  readonly configPath: string;
}

export interface ImageConfig {
  /** Layers fetched at a time, over all pulls; at least 1. */
  readonly maxConcurrentDownloads: number;
  /** A pull without a byte for so long fails. 0: never. */
  readonly noProgressTimeoutMs: number;
  /** Globs over `repository:tag`. */
  readonly pinned: readonly string[];
}

export interface VmConfig {
  readonly accelerator: "auto" | "kvm" | "tcg" | "off";
  /** Of a pod whose sandbox asks for none. */
  readonly defaultMemoryBytes: number;
  /** Of a pod whose sandbox asks for none; at least 1. */
  readonly defaultVcpus: number;
  /** Machines of the usual size go on from one that was booted once and saved. */
  readonly template: "auto" | "off";
  readonly qemuPath: string;
  /** Directory of the guest's files, found already when the key was left out. It may be missing. */
  readonly guestDir: string;
}

export interface OciConfig {
  /** Absolute path of an OCI runtime; "" for the one built into auraed. */
  readonly runtime: string;
  readonly bundleDir: string;
}

export interface PlacementConfig {
  readonly default: "prefer-vm" | "require-vm" | "flat";
}

export interface CgroupConfig {
  readonly driver: "auto" | "cgroupfs" | "systemd";
}

export interface EventsConfig {
  /** For one client; at least 1. */
  readonly maxWaiting: number;
}

export interface CdiConfig {
  /** The later ones before the earlier ones; may be empty. */
  readonly specDirs: readonly string[];
}

export interface AuraedConfig {
  /** Absolute path of the binary, found already when the key was left out. It may be missing. */
  readonly path: string;
}

export interface StreamingConfig {
  /** IPv4 or IPv6 literal of the loopback interface. */
  readonly address: string;
  /** 0: any free one. */
  readonly port: number;
  /** "" together with `tlsKeyFile`: plain HTTP. */
  readonly tlsCertFile: string;
  readonly tlsKeyFile: string;
  /** Of a session without a byte. 0: never. */
  readonly idleTimeoutMs: number;
}

export interface MetricsConfig {
  /** IPv4 or IPv6 literal. */
  readonly address: string;
  /** 0: none are served, nor collected. */
  readonly port: number;
}
