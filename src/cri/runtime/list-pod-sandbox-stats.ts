import type { ListPodSandboxStatsRequest, ListPodSandboxStatsResponse } from "../../../api/gen/cri/v1/api.ts";
import { samplePods } from "../../runtime/stats.ts";
import type { Call } from "../call.ts";
import { encodePodStats } from "../codec/encode-stats.ts";
import { matchPods } from "../codec/filters.ts";

export async function listPodSandboxStats(request: ListPodSandboxStatsRequest, call: Call): Promise<ListPodSandboxStatsResponse> {
  const samples = await samplePods(call.runtime, matchPods(call.runtime, request.filter), call);
  return { stats: samples.map((sample) => encodePodStats(call.runtime, sample)) };
}
