import {
  PodSandboxMetrics,
  type StreamPodSandboxMetricsRequest,
  type StreamPodSandboxMetricsResponse,
} from "../../../api/gen/cri/v1/api.ts";
import { inBatches } from "../batches.ts";
import type { Call } from "../call.ts";
import { podSandboxMetricsNow } from "./list-pod-sandbox-metrics.ts";

export async function* streamPodSandboxMetrics(
  _request: StreamPodSandboxMetricsRequest,
  call: Call,
): AsyncGenerator<StreamPodSandboxMetricsResponse> {
  for (const podSandboxMetrics of inBatches(await podSandboxMetricsNow(call), PodSandboxMetrics)) yield { podSandboxMetrics };
}
