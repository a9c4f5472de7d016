import type { UpdateContainerResourcesRequest, UpdateContainerResourcesResponse } from "../../../api/gen/cri/v1/api.ts";
import { updateContainer } from "../../runtime/update-container.ts";
import type { Call } from "../call.ts";
import { requireId } from "../codec/fields.ts";
import { decodeResources } from "../codec/resources.ts";

export async function updateContainerResources(
  request: UpdateContainerResourcesRequest,
  call: Call,
): Promise<UpdateContainerResourcesResponse> {
  const resources = decodeResources(request.linux, "linux");
  await updateContainer(call.runtime, requireId(request.containerId, "container_id"), resources, call);
  return {};
}
