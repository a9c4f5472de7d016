import {
  type ContainerStats as AgentContainerStats,
  type PodStats as AgentPodStats,
  PodServiceService,
} from "../../api/gen/aurae/pod/v0/pod.ts";
import { withDeadline } from "../lib/abort.ts";
import { mapLimit } from "../lib/map-limit.ts";
import type { Container, Pod, Runtime } from "./runtime.ts";

/** One container's figures; `usageNanoCores` is undefined until there are two samples to compare. */
export interface ContainerSample {
  readonly container: Container;
  readonly stats: AgentContainerStats;
  readonly usageNanoCores: bigint | undefined;
}

export interface PodSample {
  readonly pod: Pod;
  readonly stats: AgentPodStats;
  readonly usageNanoCores: bigint | undefined;
  readonly containers: readonly ContainerSample[];
}

export interface SampleOptions {
  readonly signal: AbortSignal;
  /** With what takes a look at every process. */
  readonly detailed?: boolean;
}

/** Samples a READY pod and the containers of it that have a cgroup. */
export async function samplePod(runtime: Runtime, pod: Pod, options: SampleOptions): Promise<PodSample | undefined> {
  const answer = await pod.agent.call(PodServiceService.stats, { containerIds: [], detailed: options.detailed ?? false }, options);
  if (answer.pod === undefined) return undefined;
  const containers = answer.containers.flatMap((stats) => {
    const container = pod.containers.get(stats.containerId);
    return container === undefined ? [] : [sampleOf(runtime, container, stats)];
  });
  return { pod, stats: answer.pod, usageNanoCores: rateOf(runtime, pod.id, answer.pod), containers };
}

/** Of a list: a guest that hangs must not keep the figures of the others from whoever asked. */
const SAMPLE_TIMEOUT_MS = 5_000;

/** Pods asked at a time: those that hang leave room for the others. */
const MAX_SAMPLES_AT_ONCE = 64;

/** The same for several pods; one that is not READY, fails, hangs or vanishes is left out. */
export async function samplePods(runtime: Runtime, pods: readonly Pod[], options: SampleOptions): Promise<readonly PodSample[]> {
  const ready = pods.filter(({ record }) => record.state.phase === "ready");
  const samples = await mapLimit(ready, MAX_SAMPLES_AT_ONCE, async (pod) => {
    using scope = withDeadline(SAMPLE_TIMEOUT_MS, options.signal);
    try {
      return await samplePod(runtime, pod, { ...options, signal: scope.signal });
    } catch (error) {
      options.signal.throwIfAborted();
      runtime.log.warn("no stats from a pod", { podId: pod.id }, error);
      return undefined;
    }
  });
  return samples.filter((sample) => sample !== undefined);
}

/** Samples the given containers, a pod at a time. One that fails or vanishes is left out: it must not fail the others. */
export async function sampleContainers(
  runtime: Runtime,
  containers: readonly Container[],
  options: { readonly signal: AbortSignal },
): Promise<readonly ContainerSample[]> {
  const byPod = Map.groupBy(containers, (container) => container.pod);
  const samples = await Promise.all([...byPod].map(([pod, wanted]) => sampleSome(runtime, pod, wanted, options)));
  return samples.flat();
}

async function sampleSome(
  runtime: Runtime,
  pod: Pod,
  wanted: readonly Container[],
  options: { readonly signal: AbortSignal },
): Promise<readonly ContainerSample[]> {
  if (pod.record.state.phase !== "ready") return [];
  using scope = withDeadline(SAMPLE_TIMEOUT_MS, options.signal);
  try {
    const answer = await pod.agent.call(PodServiceService.stats, { containerIds: wanted.map(({ id }) => id), detailed: false }, scope);
    return answer.containers.flatMap((stats) => {
      const container = pod.containers.get(stats.containerId);
      return container === undefined ? [] : [sampleOf(runtime, container, stats)];
    });
  } catch (error) {
    options.signal.throwIfAborted();
    runtime.log.warn("no stats from a pod", { podId: pod.id }, error);
    return [];
  }
}

function sampleOf(runtime: Runtime, container: Container, stats: AgentContainerStats): ContainerSample {
  return { container, stats, usageNanoCores: rateOf(runtime, container.id, stats) };
}

/** Two samples nearer than this are too close to make a rate of. */
const RATE_WINDOW_NS = 1_000_000_000n;

interface RateWindow {
  readonly timestampNs: bigint;
  readonly usageNs: bigint;
  readonly rate: bigint | undefined;
}

/** CPU use between two readings, per id. Entries go with their pod or container. */
export type Rates = Map<string, RateWindow>;

function rateOf(runtime: Runtime, id: string, stats: AgentPodStats | AgentContainerStats): bigint | undefined {
  if (stats.cpu === undefined) return undefined;
  const before = runtime.rates.get(id);
  const elapsedNs = before === undefined ? 0n : stats.timestampNs - before.timestampNs;
  if (before !== undefined && elapsedNs < RATE_WINDOW_NS) return before.rate;
  const usageNs = stats.cpu.usageCoreNs;
  const rate = before === undefined || usageNs < before.usageNs ? undefined : ((usageNs - before.usageNs) * 1_000_000_000n) / elapsedNs;
  runtime.rates.set(id, { timestampNs: stats.timestampNs, usageNs, rate });
  return rate;
}
