import type { ContainerStatsRequest, ContainerStatsResponse } from "../../../api/gen/cri/v1/api.ts";
import { getContainer } from "../../runtime/lookup.ts";
import { sampleContainers } from "../../runtime/stats.ts";
import type { Call } from "../call.ts";
import { encodeContainerStats } from "../codec/encode-stats.ts";
import { requireId } from "../codec/fields.ts";

export async function containerStats(request: ContainerStatsRequest, call: Call): Promise<ContainerStatsResponse> {
  const container = getContainer(call.runtime, requireId(request.containerId, "container_id"));
  const [sample] = await sampleContainers(call.runtime, [container], call);
  return { stats: encodeContainerStats(call.runtime, container.record, sample) };
}
