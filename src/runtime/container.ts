import { unreachable } from "../lib/coded-error.ts";
import type { ContainerConfig } from "./container-config.ts";
import type { ImageVolume } from "./image-volumes.ts";
import type { CdiEdits } from "./ports.ts";
import type { Phase } from "./timeline.ts";

/**
 * The life of a container.
 *
 *     creating ──created──▶ created ──started──▶ running ──exited──▶ exited
 *                              └───────────────exited────────────────▲
 *
 * `creating` is never seen by a client: a container that a killed daemon left there is rolled back at the next start. Once exited, a
 * container stays so.
 */
export type ContainerState =
  | { readonly phase: "creating" }
  | { readonly phase: "created"; readonly pid: number }
  | { readonly phase: "running"; readonly pid: number; readonly startedAtNs: string }
  | ({ readonly phase: "exited"; readonly startedAtNs: string } & ContainerExit);

/** How a container ended. */
export interface ContainerExit {
  readonly finishedAtNs: string;
  /** The process's code, 128 + n after signal n, 128 when it could not be started, 255 when nobody saw its end. */
  readonly exitCode: number;
  readonly reason: ExitReason;
  readonly message: string;
}

export type ExitReason = "Completed" | "Error" | "OOMKilled" | "StartError" | "AuraedCrashed" | "SandboxCrashed" | "NodeRebooted";

export type ContainerEvent =
  | { readonly type: "created"; readonly pid: number }
  | { readonly type: "started"; readonly startedAtNs: string }
  | { readonly type: "exited"; readonly startedAtNs: string; readonly exit: ContainerExit };

/** The one transition function. An event that does not apply leaves the state as it is. */
export function nextContainerState(state: ContainerState, event: ContainerEvent): ContainerState {
  switch (event.type) {
    case "created":
      return state.phase === "creating" ? { phase: "created", pid: event.pid } : state;
    case "started":
      return state.phase === "created" ? { phase: "running", pid: state.pid, startedAtNs: event.startedAtNs } : state;
    case "exited":
      return state.phase === "exited" ? state : { phase: "exited", startedAtNs: event.startedAtNs, ...event.exit };
    default:
      return unreachable(event);
  }
}

/** The reason CRI shows for an exit that auraed saw. */
export function exitReason(exitCode: number, oomKilled: boolean): ExitReason {
  if (oomKilled) return "OOMKilled";
  return exitCode === 0 ? "Completed" : "Error";
}

/** The user a container's process runs as, as looked up inside its root filesystem. */
export interface ContainerUser {
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids: readonly number[];
  readonly home: string;
}

/** What is durable about a container. */
export interface ContainerRecord {
  readonly version: 1;
  readonly id: string;
  readonly podId: string;
  /** As requested, with resources kept at what is in force. */
  readonly config: ContainerConfig;
  readonly imageId: string;
  /** `repository@digest` when the image has one, else its id. */
  readonly imageRef: string;
  /** Absent: none. */
  readonly imageVolumes?: readonly ImageVolume[];
  /** What its CDI devices change, as their specifications said when it was made. */
  readonly cdi?: CdiEdits | undefined;
  /** Absolute; empty: output is discarded. */
  readonly logPath: string;
  readonly stopSignal: number;
  /** Undefined until the root filesystem was mounted. */
  readonly user: ContainerUser | undefined;
  readonly createdAtNs: string;
  /** The steps of its start so far. */
  readonly timeline?: readonly Phase[];
  readonly state: ContainerState;
}
