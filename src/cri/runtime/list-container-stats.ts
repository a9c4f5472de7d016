import type {
  ContainerStats,
  ContainerStatsFilter,
  ListContainerStatsRequest,
  ListContainerStatsResponse,
} from "../../../api/gen/cri/v1/api.ts";
import { sampleContainers } from "../../runtime/stats.ts";
import type { Call } from "../call.ts";
import { encodeContainerStats } from "../codec/encode-stats.ts";
import { matchContainersForStats } from "../codec/filters.ts";

export async function listContainerStats(request: ListContainerStatsRequest, call: Call): Promise<ListContainerStatsResponse> {
  return { stats: await containerStatsNow(request.filter, call) };
}

export async function containerStatsNow(filter: ContainerStatsFilter | undefined, call: Call): Promise<ContainerStats[]> {
  const samples = await sampleContainers(call.runtime, matchContainersForStats(call.runtime, filter), call);
  return samples.map((sample) => encodeContainerStats(call.runtime, sample.container.record, sample));
}
