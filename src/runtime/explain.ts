import type { ContainerRecord, ContainerState } from "./container.ts";
import type { PlacementReason } from "./placement/placement.ts";
import type { CrashReason, PodRecord, PodState } from "./pod.ts";
import type { PodMode } from "./ports.ts";
import type { Phase } from "./timeline.ts";

/**
 * Where a pod runs, why, and how its start went: the answer to an operator's question, also after the pod is gone. JSON-safe. Nothing of
 * it can hold a secret: no environment, arguments, labels or annotations.
 */
export interface PodExplanation {
  readonly version: 1;
  readonly id: string;
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly attempt: number;
  readonly handler: string;
  readonly isolation: PodMode;
  readonly reason: PlacementReason;
  readonly message: string;
  readonly phase: PodState["phase"];
  /** How it became NOTREADY by itself; absent when it did not. */
  readonly crash?: { readonly reason: CrashReason; readonly message: string };
  /** Unix nanoseconds, like every `…AtNs`. */
  readonly createdAtNs: string;
  /** The steps of its start. */
  readonly timeline: readonly Phase[];
  /** Oldest first; of those that were removed only the newest. */
  readonly containers: readonly ContainerSummary[];
}

export interface ContainerSummary {
  readonly id: string;
  readonly name: string;
  readonly attempt: number;
  /** As the user wrote it. */
  readonly image: string;
  readonly phase: ContainerState["phase"];
  readonly createdAtNs: string;
  readonly exit?: { readonly code: number; readonly reason: string; readonly finishedAtNs: string };
  readonly timeline: readonly Phase[];
}

export function explainPod(record: PodRecord, containers: readonly ContainerRecord[]): PodExplanation {
  const { id, config, handler, placement, state, createdAtNs } = record;
  return {
    version: 1,
    id,
    ...config.metadata,
    handler,
    isolation: placement.mode,
    reason: placement.reason,
    message: placement.message,
    phase: state.phase,
    ...(state.phase === "crashed" ? { crash: { reason: state.reason, message: state.message } } : {}),
    createdAtNs,
    timeline: record.timeline ?? [],
    containers: [...(record.removed ?? []), ...containers.map(summarizeContainer)].sort(byCreation),
  };
}

export function summarizeContainer({ id, config, state, createdAtNs, timeline = [] }: ContainerRecord): ContainerSummary {
  const { name, attempt } = config.metadata;
  const exit = state.phase === "exited" ? state : undefined;
  return {
    id,
    name,
    attempt,
    image: config.userSpecifiedImage,
    phase: state.phase,
    createdAtNs,
    ...(exit === undefined ? {} : { exit: { code: exit.exitCode, reason: exit.reason, finishedAtNs: exit.finishedAtNs } }),
    timeline,
  };
}

/** Removed containers that a pod remembers. */
const MAX_REMOVED = 16;

/** The record of a pod from which a container was removed. */
export function withRemoved(record: PodRecord, container: ContainerRecord): PodRecord {
  // One that was never created was nobody's container; its creator was told why.
  if (container.state.phase === "creating") return record;
  const earlier = (record.removed ?? []).filter(({ id }) => id !== container.id);
  return { ...record, removed: [...earlier, summarizeContainer(container)].slice(-MAX_REMOVED) };
}

function byCreation(a: ContainerSummary, b: ContainerSummary): number {
  return BigInt(a.createdAtNs) < BigInt(b.createdAtNs) ? -1 : 1;
}
