import type { ListContainerStatsRequest, ListContainerStatsResponse } from "../../../api/gen/cri/v1/api.ts";
import { sampleContainers } from "../../runtime/stats.ts";
import type { Call } from "../call.ts";
import { encodeContainerStats } from "../codec/encode-stats.ts";
import { matchContainersForStats } from "../codec/filters.ts";

export async function listContainerStats(request: ListContainerStatsRequest, call: Call): Promise<ListContainerStatsResponse> {
  const samples = await sampleContainers(call.runtime, matchContainersForStats(call.runtime, request.filter), call);
  return { stats: samples.map((sample) => encodeContainerStats(call.runtime, sample.container.record, sample)) };
}
