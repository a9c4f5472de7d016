import type { StopPodSandboxRequest, StopPodSandboxResponse } from "../../../api/gen/cri/v1/api.ts";
import { stopPod } from "../../runtime/stop-pod.ts";
import type { Call } from "../call.ts";
import { requireId } from "../codec/fields.ts";

export async function stopPodSandbox(request: StopPodSandboxRequest, call: Call): Promise<StopPodSandboxResponse> {
  await stopPod(call.runtime, requireId(request.podSandboxId, "pod_sandbox_id"), call);
  return {};
}
