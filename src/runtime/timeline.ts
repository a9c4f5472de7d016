import { messageOf } from "../lib/coded-error.ts";
import { nowNs } from "../lib/time.ts";
import type { Container, Pod, Runtime } from "./runtime.ts";

/** The steps of a pod's start, in the order in which they begin. */
export type PodPhase =
  | "placement"
  | "record"
  | "supervisor"
  | "namespaces"
  | "network"
  | "pod-files"
  /** Until there is a turn to boot. */
  | "vm-turn"
  /** Until QEMU has been executed. */
  | "vm-start"
  /** Until the guest's auraed answers. */
  | "guest-boot"
  /** The same of a machine that goes on from a template. */
  | "guest-restore"
  | "guest-network"
  | "guest-setup";

/** The steps of a container's start. */
export type ContainerPhase = "image-mount" | "expose-layers" | "volumes" | "prepare" | "image-volumes" | "create" | "start";

export type PhaseName = PodPhase | ContainerPhase;

/** One step that was done, or failed. JSON-safe: records keep it. */
export interface Phase {
  readonly name: PhaseName;
  /** Unix nanoseconds. */
  readonly startedAtNs: string;
  /** To a tenth of a millisecond. */
  readonly durationMs: number;
  /** Why the step failed; absent when it did not. */
  readonly failure?: string;
}

/** More than the longest start has. */
const MAX_PHASES = 32;
const MAX_FAILURE_LENGTH = 1_024;

/** Answers like `work`; `keep` is told how long that took before the answer is out. */
export async function timed<T>(name: PhaseName, work: () => Promise<T>, keep: (phase: Phase) => void): Promise<T> {
  const startedAtNs = String(nowNs());
  const startMs = performance.now();
  try {
    const result = await work();
    keep({ name, startedAtNs, durationMs: elapsedMs(startMs) });
    return result;
  } catch (error) {
    keep({ name, startedAtNs, durationMs: elapsedMs(startMs), failure: messageOf(error).slice(0, MAX_FAILURE_LENGTH) });
    throw error;
  }
}

/** One step of a pod's start: it is part of the pod's record from then on, and one that ended well is counted. */
export function podPhase<T>(runtime: Runtime, pod: Pod, name: PodPhase, work: () => Promise<T>): Promise<T> {
  return timed(name, work, (phase) => {
    pod.record = { ...pod.record, timeline: withPhase(pod.record.timeline, phase) };
    observe(runtime, pod, phase);
  });
}

/** The same of a container's. */
export function containerPhase<T>(runtime: Runtime, container: Container, name: ContainerPhase, work: () => Promise<T>): Promise<T> {
  return timed(name, work, (phase) => {
    container.record = { ...container.record, timeline: withPhase(container.record.timeline, phase) };
    observe(runtime, container.pod, phase);
  });
}

function observe(runtime: Runtime, pod: Pod, { name, durationMs, failure }: Phase): void {
  if (failure === undefined) runtime.metrics.startPhase({ mode: pod.record.placement.mode, phase: name, seconds: durationMs / 1000 });
}

/** Steps may overlap: they are listed by their beginning. What is beyond the bound is not kept. */
export function withPhase(phases: readonly Phase[] = [], phase: Phase): readonly Phase[] {
  if (phases.length >= MAX_PHASES) return phases;
  const later = phases.findIndex(({ startedAtNs }) => BigInt(startedAtNs) > BigInt(phase.startedAtNs));
  return later === -1 ? [...phases, phase] : phases.toSpliced(later, 0, phase);
}

function elapsedMs(startMs: number): number {
  return Math.round((performance.now() - startMs) * 10) / 10;
}
