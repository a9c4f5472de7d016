import type {
  ListPodSandboxStatsRequest,
  ListPodSandboxStatsResponse,
  PodSandboxStats,
  PodSandboxStatsFilter,
} from "../../../api/gen/cri/v1/api.ts";
import { samplePods } from "../../runtime/stats.ts";
import type { Call } from "../call.ts";
import { encodePodStats } from "../codec/encode-stats.ts";
import { matchPods } from "../codec/filters.ts";

export async function listPodSandboxStats(request: ListPodSandboxStatsRequest, call: Call): Promise<ListPodSandboxStatsResponse> {
  return { stats: await podSandboxStatsNow(request.filter, call) };
}

export async function podSandboxStatsNow(filter: PodSandboxStatsFilter | undefined, call: Call): Promise<PodSandboxStats[]> {
  const samples = await samplePods(call.runtime, matchPods(call.runtime, filter), call);
  return samples.map((sample) => encodePodStats(call.runtime, sample));
}
