import type { ListPodSandboxMetricsRequest, ListPodSandboxMetricsResponse, PodSandboxMetrics } from "../../../api/gen/cri/v1/api.ts";
import { samplePods } from "../../runtime/stats.ts";
import type { Call } from "../call.ts";
import { encodePodMetrics } from "../codec/encode-metrics.ts";

export async function listPodSandboxMetrics(_request: ListPodSandboxMetricsRequest, call: Call): Promise<ListPodSandboxMetricsResponse> {
  return { podMetrics: await podSandboxMetricsNow(call) };
}

export async function podSandboxMetricsNow({ runtime, signal }: Call): Promise<PodSandboxMetrics[]> {
  const samples = await samplePods(runtime, [...runtime.pods.values()], { signal, detailed: true });
  return samples.map(encodePodMetrics);
}
