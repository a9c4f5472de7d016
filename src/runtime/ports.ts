/**
 * What the runtime needs from the rooms below it. The rooms satisfy these shapes; tests pass fakes of them.
 *
 * Every method that can wait takes an `AbortSignal`. Errors are each room's own `CodedError`.
 */

import type { Socket } from "node:net";

/** An image as the node holds it. Source of the identity rules: CRI contract, image service. */
export interface Image {
  /** `sha256:` + 64 hex: digest of the image config. */
  readonly id: string;
  /** Fully qualified `repository:tag`, sorted. */
  readonly repoTags: readonly string[];
  /** `repository@sha256:…`, sorted. */
  readonly repoDigests: readonly string[];
  /** Bytes of config and compressed layers. Never 0. */
  readonly sizeBytes: number;
  readonly pinned: boolean;
  readonly config: ImageConfig;
  /** The OCI image config document as pulled, for verbose info. */
  readonly rawConfig: unknown;
  /** Lowest first. */
  readonly layers: readonly ImageLayer[];
}

/** The part of an OCI image config that decides how a container runs. */
export interface ImageConfig {
  readonly user: string;
  readonly env: readonly string[];
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  readonly workingDir: string;
  readonly stopSignal: string;
  readonly volumes: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
}

export interface ImageLayer {
  /** `sha256:…` of the uncompressed tar. */
  readonly diffId: string;
  /** Absolute path of the EROFS blob. */
  readonly blobPath: string;
}

export interface FilesystemUsage {
  readonly timestampNs: bigint;
  readonly mountpoint: string;
  readonly usedBytes: bigint;
  readonly inodesUsed: bigint;
}

/** Credentials of one pull, as CRI's AuthConfig gives them. Never logged. */
export interface PullCredentials {
  readonly username: string;
  readonly password: string;
  readonly auth: string;
  readonly serverAddress: string;
  readonly identityToken: string;
  readonly registryToken: string;
}

export interface PullRequest {
  readonly reference: string;
  readonly credentials: PullCredentials | undefined;
  /** Random id of the CRI call, for logs. */
  readonly requestId: string;
}

/** The image room. */
export interface Images {
  /** Resolves to the id of the image, which is listed before the promise resolves. Identical pulls under way are joined. */
  pull(request: PullRequest, options: { readonly signal: AbortSignal }): Promise<string>;
  /** By id, unique id prefix, tag, digest or familiar name; undefined when there is none. */
  find(reference: string): Image | undefined;
  list(): readonly Image[];
  /** Drops every reference; unknown is success. Layers still mounted stay until released. */
  remove(reference: string): Promise<void>;
  fsUsage(): Promise<FilesystemUsage>;
  /**
   * Mounts the layers of an image on the host, each once per node, on behalf of `owner` (a container, or a volume of it), and returns their
   * directories, uppermost first. The same owner's second call answers like the first.
   */
  mountLayers(imageId: string, owner: string, options: { readonly signal: AbortSignal }): Promise<readonly string[]>;
  /** Claims the layers as `mountLayers` does, for an owner that mounts their blobs elsewhere; uppermost first, each once. */
  claimLayers(imageId: string, owner: string): readonly ImageLayer[];
  /** Gives up the owner's claim; a layer without claims is unmounted when its last image goes. Unknown owner is success. */
  releaseLayers(owner: string): Promise<void>;
  /** At start: the owners that exist, with their image. Mounts of others are taken down. */
  recoverMounts(owners: ReadonlyMap<string, string>): Promise<void>;
}

/** What giving CDI devices to a container changes in it. JSON-safe; paths are the host's. Where two parts set the same, the later one wins. */
export interface CdiEdits {
  /** `NAME=value`. */
  readonly env: readonly string[];
  readonly deviceNodes: readonly CdiDeviceNode[];
  readonly mounts: readonly CdiMount[];
  readonly hooks: readonly CdiHook[];
  readonly additionalGids: readonly number[];
  readonly intelRdt?: CdiIntelRdt;
}

export interface CdiDeviceNode {
  readonly containerPath: string;
  readonly hostPath: string;
  readonly type: "b" | "c";
  readonly major: number;
  readonly minor: number;
  /** Permission bits. */
  readonly fileMode: number;
  /** Some of r, w and m. */
  readonly permissions: string;
  /** Absent: the container's user. */
  readonly uid?: number;
  readonly gid?: number;
}

export interface CdiMount {
  readonly hostPath: string;
  readonly containerPath: string;
  /** `bind`, or a file system that mount(8) knows. */
  readonly type: string;
  readonly options: readonly string[];
}

/** A program of the host that the OCI runtime runs. */
export interface CdiHook {
  readonly name: "prestart" | "createRuntime" | "createContainer" | "startContainer" | "poststart" | "poststop";
  readonly path: string;
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly timeoutSec?: number;
}

/** As the OCI runtime specification spells it. */
export interface CdiIntelRdt {
  readonly closID?: string | undefined;
  readonly l3CacheSchema?: string | undefined;
  readonly memBwSchema?: string | undefined;
  readonly enableCMT?: boolean | undefined;
  readonly enableMBM?: boolean | undefined;
  readonly schemata?: readonly string[] | undefined;
  readonly enableMonitoring?: boolean | undefined;
}

/** The cdi room. */
export interface Cdi {
  /** The edits of fully qualified devices together, everything in them looked up on this host; undefined for no device. */
  resolve(names: readonly string[]): Promise<CdiEdits | undefined>;
}

export interface PortMapping {
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly containerPort: number;
  readonly hostPort: number;
  readonly hostIp: string;
}

export interface NetworkRequest {
  readonly podId: string;
  readonly podName: string;
  readonly podNamespace: string;
  readonly podUid: string;
  /** Pinned network namespace, up to the loopback. */
  readonly netnsPath: string;
  readonly portMappings: readonly PortMapping[];
}

/** What CNI gave a pod. */
export interface PodNetwork {
  /** Addresses of the pod's default interface, the primary first. Never empty. */
  readonly ips: readonly string[];
  /** The plugin chain's result as JSON, for verbose info. */
  readonly cniResult: unknown;
}

export type NetworkStatus =
  | { readonly ready: true; readonly networkName: string; readonly confFile: string }
  | { readonly ready: false; readonly reason: string; readonly message: string };

/** The netns room. */
export interface Network {
  status(): NetworkStatus;
  /** CNI ADD of the configured list. On failure nothing is left behind. What DEL needs is durable before ADD runs. */
  attach(request: NetworkRequest, options: { readonly signal: AbortSignal }): Promise<PodNetwork>;
  /** CNI DEL from what was cached, also when the namespace or the configuration is gone. Never attached is success. */
  detach(podId: string, options: { readonly signal: AbortSignal }): Promise<void>;
  /** Pods that hold a cached attachment: for the sweep at start. */
  attached(): Promise<readonly string[]>;
}

/** A durable record: one JSON document under a kind and an id. */
export interface StoredRecord {
  readonly id: string;
  readonly value: unknown;
}

export type RecordKind = "pod" | "container" | "image" | "layer";

export type RecordWrite =
  | { readonly op: "put"; readonly kind: RecordKind; readonly id: string; readonly value: unknown }
  | { readonly op: "delete"; readonly kind: RecordKind; readonly id: string };

/** The store room: node:sqlite behind a worker thread. */
export interface Store {
  /** One transaction; resolves when it is durable. Concurrent calls share a commit. */
  write(writes: readonly RecordWrite[]): Promise<void>;
  list(kind: RecordKind): Promise<readonly StoredRecord[]>;
}

/** A process, told apart from a later one with the same pid by its start time (clock ticks since boot). */
export interface ProcessIdentity {
  readonly pid: number;
  readonly startTime: number;
}

/** Which of its ways to start: the supervisor of a flat pod, or of a microVM. */
export type AuraedWay = "pod" | "vm";

/** What the runtime asks of the host room for one pod. */
export interface PodHost {
  /** Starts `auraed pod` or `auraed vm` for the directory and returns when it listens on `<dir>/auraed.sock`. */
  startAuraed(dir: string, way: AuraedWay, options: { readonly signal: AbortSignal }): Promise<ProcessIdentity>;
  /** The auraed that serves the directory, when one is alive. */
  findAuraed(dir: string): ProcessIdentity | undefined;
  isAlive(process: ProcessIdentity): boolean;
  /** SIGKILLs the process and waits until it is gone. Already gone is success. */
  kill(process: ProcessIdentity, options: { readonly signal: AbortSignal }): Promise<void>;
  /** Kills everything in the cgroups, unmounts everything below `dir`, removes the cgroups. Idempotent. */
  cleanPod(dir: string, cgroups: readonly string[], options: { readonly signal: AbortSignal }): Promise<void>;
  /**
   * A connection to a port of the loopback of a network namespace ("": the host's), open in both directions until each has ended. Throws
   * when nothing listens there.
   */
  dial(netnsPath: string, port: number, options: { readonly signal: AbortSignal }): Promise<Socket>;
  /** Deletes a tree without following links or crossing mounts. Absent is success. */
  removeTree(path: string, options: { readonly signal: AbortSignal }): Promise<void>;
}

/** Whether this node can run microVMs. */
export type VirtualizationReport =
  /** The trial boot has not ended yet. */
  | { readonly state: "unknown" }
  | { readonly state: "available"; readonly accelerator: "kvm" | "tcg"; readonly message: string }
  /** `message` says what is missing and what to do; `consoleTail` is the guest's last output, "" when none was booted. */
  | { readonly state: "unavailable"; readonly message: string; readonly consoleTail: string };

/** What the runtime asks of whoever knows that. */
export interface Virtualization {
  report(): VirtualizationReport;
  /** Resolves with the first report that is not `unknown`. */
  settled(options: { readonly signal: AbortSignal }): Promise<VirtualizationReport>;
  /** Looks anew when files or a device lacked, for somebody who cannot do without; resolves with what is known then. Never repeats a trial boot. */
  lookAgain(options: { readonly signal: AbortSignal }): Promise<VirtualizationReport>;
}

export type PodMode = "microvm" | "flat";

/** What the runtime counts as it happens. Labels come from closed sets: nothing that a client may choose freely. */
export interface Metrics {
  podPlaced(labels: { readonly mode: PodMode | "refused"; readonly reason: string; readonly handler: string }): void;
  startPhase(sample: { readonly mode: PodMode; readonly phase: string; readonly seconds: number }): void;
}

/** Keeps what is to be known of pods that are gone: bounded, the newest. */
export interface PodHistory {
  /** Replaces what was kept under the id. */
  keep(podId: string, value: unknown): Promise<void>;
}

/** What of a pod decides about its machine. A sandbox's whole configuration fits; nothing else of it is read. */
export interface MachineNeeds {
  /** `linux.resources`: the sum over the pod's containers. Absent, or without a limit: the node's defaults. */
  readonly resources: MachineResources | undefined;
  /** `linux.overhead`: RuntimeClass `overhead.podFixed`. */
  readonly overhead: MachineResources | undefined;
}

/** An absent value, and -1 for a quota, is no limit. */
export interface MachineResources {
  readonly memoryLimitBytes?: number;
  readonly cpuQuotaUs?: number;
  readonly cpuPeriodUs?: number;
}

/** How large a machine is. */
export interface MachineSize {
  /** All of the guest's memory; a multiple of 2 MiB. */
  readonly memoryBytes: number;
  readonly vcpus: number;
  /** Part of it that the guest's kernel and auraed take: the containers have the rest. */
  readonly guestReserveBytes: number;
}

/** A pod's own directories on the host, absolute. */
export interface MachineDirs {
  /** On a tmpfs, gone after a reboot. */
  readonly stateDir: string;
  /** With the pod's record; on the disk that holds its scratch space. */
  readonly rootDir: string;
}

/** What `auraed vm` is asked to start (StartVmRequest), less what is not the machine's own: user, group, cgroup. */
export interface MachineLaunch {
  readonly program: string;
  readonly args: string[];
  readonly files: { hostPath: string; path: string }[];
  readonly runPath: string;
  readonly kvm: boolean;
  readonly scratchTemplate: string;
  readonly scratchPath: string;
  /** "": the machine boots. */
  readonly savedStatePath: string;
}

export interface MachinePlan {
  readonly size: MachineSize;
  /** The machine goes on from a saved one instead of booting. */
  readonly restores: boolean;
  launch(dirs: MachineDirs): MachineLaunch;
  /** The machine has started: the next one may begin with more. */
  started(): void;
  /** The machine was launched and did not come up. `problem` is for the log. */
  failed(problem: string): Promise<void>;
}

export interface LayerToPlug {
  /** 1 to 96 lower-case letters, digits, `-` and `.`. In QEMU's root the blob is at `/layers/NAME` (ExposeLayer). */
  readonly name: string;
  /** Of the blob; a multiple of 2 MiB. */
  readonly sizeBytes: number;
}

export interface MachineStatus {
  readonly running: boolean;
  /** QEMU's word for its state, such as `running`, `paused`, `guest-panicked`. */
  readonly qemuState: string;
  /** Names of the layers that are plugged. */
  readonly layers: readonly string[];
}

/** A conversation with a microVM that runs. Its answers are a guest's word: one that broke into QEMU can say anything about itself. */
export interface Machine extends AsyncDisposable {
  /** Brings the saved machine back, which runs when the promise resolves. Only of a machine that was launched so, and once. */
  restore(options: { readonly signal: AbortSignal }): Promise<void>;
  /**
   * Plugs an exposed layer, or finds it plugged, and answers where the guest sees it: PCI addresses from bus 0 on, as `10.0/01.0` (MountLayers).
   * A layer cannot be unplugged: it stays as long as the machine, and the next container of its image finds it there.
   */
  plugLayer(layer: LayerToPlug, options: { readonly signal: AbortSignal }): Promise<string>;
  status(options: { readonly signal: AbortSignal }): Promise<MachineStatus>;
}

export interface ConnectOptions {
  readonly signal: AbortSignal;
  /** The machine may not take connections yet: waits some seconds for it. */
  readonly justStarted?: boolean;
}

/** The vm room. */
export interface Vmm {
  /** Throws when the node cannot virtualize, and when the pod asks for less than what boots or more than what can be. */
  plan(needs: MachineNeeds): MachinePlan;
  /** To the pod's machine. One conversation at a time: the next one waits for the end of this. */
  connect(stateDir: string, options: ConnectOptions): Promise<Machine>;
}
