import type { StartContainerRequest, StartContainerResponse } from "../../../api/gen/cri/v1/api.ts";
import { startContainer as start } from "../../runtime/start-container.ts";
import type { Call } from "../call.ts";
import { requireId } from "../codec/fields.ts";

export async function startContainer(request: StartContainerRequest, call: Call): Promise<StartContainerResponse> {
  await start(call.runtime, requireId(request.containerId, "container_id"), call);
  return {};
}
