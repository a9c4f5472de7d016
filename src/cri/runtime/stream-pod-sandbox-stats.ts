import { PodSandboxStats, type StreamPodSandboxStatsRequest, type StreamPodSandboxStatsResponse } from "../../../api/gen/cri/v1/api.ts";
import { inBatches } from "../batches.ts";
import type { Call } from "../call.ts";
import { podSandboxStatsNow } from "./list-pod-sandbox-stats.ts";

export async function* streamPodSandboxStats(
  request: StreamPodSandboxStatsRequest,
  call: Call,
): AsyncGenerator<StreamPodSandboxStatsResponse> {
  for (const podSandboxStats of inBatches(await podSandboxStatsNow(request.filter, call), PodSandboxStats)) yield { podSandboxStats };
}
