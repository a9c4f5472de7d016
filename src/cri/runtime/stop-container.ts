import type { StopContainerRequest, StopContainerResponse } from "../../../api/gen/cri/v1/api.ts";
import { stopContainer as stop } from "../../runtime/stop-container.ts";
import type { Call } from "../call.ts";
import { requireId, secondsToMs } from "../codec/fields.ts";

export async function stopContainer(request: StopContainerRequest, call: Call): Promise<StopContainerResponse> {
  const graceMs = secondsToMs(request.timeout, "timeout");
  await stop(call.runtime, requireId(request.containerId, "container_id"), graceMs, call);
  return {};
}
