import type { PodCgroup } from "../host/cgroup-paths.ts";
import { unreachable } from "../lib/coded-error.ts";
import type { ContainerSummary } from "./explain.ts";
import type { Guest } from "./guest.ts";
import type { LateRefusal } from "./placement/late-refusal.ts";
import type { Placement } from "./placement/placement.ts";
import type { PodNetwork, ProcessIdentity } from "./ports.ts";
import type { Resources, SandboxConfig } from "./sandbox-config.ts";
import type { Phase } from "./timeline.ts";

/**
 * The life of a pod sandbox.
 *
 *     creating ──started──▶ ready ──stop──▶ stopping ──torn-down──▶ stopped
 *         │                  │                 ▲
 *         └─────crashed──────┴──▶ crashed ─stop┘
 *
 * Only `ready` is SANDBOX_READY. `stopping` and `crashed` mean that teardown has still to succeed: StopPodSandbox, RemovePodSandbox and the
 * daemon's start run it again until it does.
 */
export type PodState =
  | { readonly phase: "creating" }
  | { readonly phase: "ready"; readonly sandbox: Sandbox }
  | { readonly phase: "stopping"; readonly sandbox: Sandbox | undefined }
  | { readonly phase: "stopped"; readonly sandbox: Sandbox | undefined }
  | { readonly phase: "crashed"; readonly sandbox: Sandbox | undefined; readonly reason: CrashReason; readonly message: string };

/** Why a pod became NOTREADY by itself. */
export type CrashReason =
  | "AuraedCrashed"
  /** The microVM ended. */
  | "SandboxCrashed"
  | "OOMKilled"
  | "NodeRebooted"
  | "RollbackFailed"
  /** A container cannot run in the microVM; the pod's next sandbox is flat. */
  | "NeedsHost";

/** What holds a running pod: facts needed to find and to tear down what was made for it. */
export interface Sandbox {
  readonly auraed: ProcessIdentity;
  /** On the host. */
  readonly namespaces: NamespacePaths;
  /** Undefined on the host's network. */
  readonly network: PodNetwork | undefined;
  /** Undefined for a flat pod. */
  readonly guest?: Guest | undefined;
}

/** Pinned namespace files; an empty path is the host's namespace. */
export interface NamespacePaths {
  readonly network: string;
  readonly ipc: string;
  readonly uts: string;
  readonly pid: string;
  readonly user: string;
}

export type PodEvent =
  | { readonly type: "started"; readonly sandbox: Sandbox }
  | { readonly type: "stop" }
  | { readonly type: "torn-down" }
  | { readonly type: "crashed"; readonly reason: CrashReason; readonly message: string };

/** The one transition function. An event that does not apply leaves the state as it is. */
export function nextPodState(state: PodState, event: PodEvent): PodState {
  switch (event.type) {
    case "started":
      return state.phase === "creating" ? { phase: "ready", sandbox: event.sandbox } : state;
    case "stop":
      return state.phase === "stopped" ? state : { phase: "stopping", sandbox: sandboxOf(state) };
    case "torn-down":
      return { phase: "stopped", sandbox: sandboxOf(state) };
    case "crashed":
      if (state.phase !== "creating" && state.phase !== "ready") return state;
      return { phase: "crashed", sandbox: sandboxOf(state), reason: event.reason, message: event.message };
    default:
      return unreachable(event);
  }
}

/** The sandbox that a state remembers, running or not. */
export function sandboxOf(state: PodState): Sandbox | undefined {
  return state.phase === "creating" ? undefined : state.sandbox;
}

/** What is durable about a pod: in the database and, as a second copy, in the pod's own directory. */
export interface PodRecord {
  readonly version: 1;
  readonly id: string;
  readonly config: SandboxConfig;
  /** RuntimeClass handler as requested; "" is the default. */
  readonly handler: string;
  readonly placement: Placement;
  /** Boot of the host in which the pod was made: nothing of a pod survives the next one. */
  readonly bootId: string;
  readonly cgroup: PodCgroup;
  readonly createdAtNs: string;
  /** What UpdatePodSandboxResources said last; absent: as in `config`, which stays as requested. */
  readonly updated?: PodResources;
  /** Why the pod cannot run in a microVM, found out by this sandbox or by an earlier one of the same pod. Outlives the daemon's memory of it. */
  readonly refusal?: LateRefusal;
  /** The steps of its start so far. */
  readonly timeline?: readonly Phase[];
  /** The newest of the containers that were removed from it. */
  readonly removed?: readonly ContainerSummary[];
  readonly state: PodState;
}

/** A pod's size in its client's eyes. */
export interface PodResources {
  readonly overhead: Resources | undefined;
  readonly resources: Resources | undefined;
}

export function podResources({ config, updated }: PodRecord): PodResources {
  return updated ?? { overhead: config.overhead, resources: config.resources };
}
