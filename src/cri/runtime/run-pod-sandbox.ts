import type { RunPodSandboxRequest, RunPodSandboxResponse } from "../../../api/gen/cri/v1/api.ts";
import { runPod } from "../../runtime/run-pod.ts";
import type { Call } from "../call.ts";
import { decodeSandboxConfig } from "../codec/sandbox-config.ts";

export async function runPodSandbox(request: RunPodSandboxRequest, call: Call): Promise<RunPodSandboxResponse> {
  const config = decodeSandboxConfig(request.config);
  const podSandboxId = await runPod(call.runtime, { config, handler: request.runtimeHandler, requestId: call.requestId }, call);
  return { podSandboxId };
}
