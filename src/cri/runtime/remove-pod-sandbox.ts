import type { RemovePodSandboxRequest, RemovePodSandboxResponse } from "../../../api/gen/cri/v1/api.ts";
import { removePod } from "../../runtime/stop-pod.ts";
import type { Call } from "../call.ts";
import { requireId } from "../codec/fields.ts";

export async function removePodSandbox(request: RemovePodSandboxRequest, call: Call): Promise<RemovePodSandboxResponse> {
  await removePod(call.runtime, requireId(request.podSandboxId, "pod_sandbox_id"), call);
  return {};
}
