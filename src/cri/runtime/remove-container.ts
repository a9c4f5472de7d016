import type { RemoveContainerRequest, RemoveContainerResponse } from "../../../api/gen/cri/v1/api.ts";
import { removeContainer as remove } from "../../runtime/remove-container.ts";
import type { Call } from "../call.ts";
import { requireId } from "../codec/fields.ts";

export async function removeContainer(request: RemoveContainerRequest, call: Call): Promise<RemoveContainerResponse> {
  await remove(call.runtime, requireId(request.containerId, "container_id"), call);
  return {};
}
