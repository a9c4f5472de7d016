import type { PortForwardRequest, PortForwardResponse } from "../../../api/gen/cri/v1/api.ts";
import { preparePortForward } from "../../runtime/stream-request.ts";
import type { Call } from "../call.ts";
import { requireId } from "../codec/fields.ts";

export async function portForward(request: PortForwardRequest, call: Call): Promise<PortForwardResponse> {
  const podId = requireId(request.podSandboxId, "pod_sandbox_id");
  return { url: call.streamUrls.register(preparePortForward(call.runtime, { podId, ports: request.port })) };
}
