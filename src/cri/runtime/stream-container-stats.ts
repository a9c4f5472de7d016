import { ContainerStats, type StreamContainerStatsRequest, type StreamContainerStatsResponse } from "../../../api/gen/cri/v1/api.ts";
import { inBatches } from "../batches.ts";
import type { Call } from "../call.ts";
import { containerStatsNow } from "./list-container-stats.ts";

export async function* streamContainerStats(
  request: StreamContainerStatsRequest,
  call: Call,
): AsyncGenerator<StreamContainerStatsResponse> {
  for (const containerStats of inBatches(await containerStatsNow(request.filter, call), ContainerStats)) yield { containerStats };
}
