import { PodSandbox, type StreamPodSandboxesRequest, type StreamPodSandboxesResponse } from "../../../api/gen/cri/v1/api.ts";
import { inBatches } from "../batches.ts";
import type { Call } from "../call.ts";
import { podSandboxesNow } from "./list-pod-sandbox.ts";

export async function* streamPodSandboxes(request: StreamPodSandboxesRequest, call: Call): AsyncGenerator<StreamPodSandboxesResponse> {
  for (const podSandboxes of inBatches(podSandboxesNow(request.filter, call), PodSandbox)) yield { podSandboxes };
}
