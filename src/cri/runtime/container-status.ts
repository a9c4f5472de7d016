import type { ContainerStatusRequest, ContainerStatusResponse } from "../../../api/gen/cri/v1/api.ts";
import { getContainer } from "../../runtime/lookup.ts";
import type { Call } from "../call.ts";
import { encodeContainerInfo, encodeContainerStatus } from "../codec/encode-container.ts";
import { requireId } from "../codec/fields.ts";

export async function containerStatus(request: ContainerStatusRequest, call: Call): Promise<ContainerStatusResponse> {
  const container = getContainer(call.runtime, requireId(request.containerId, "container_id"));
  return {
    status: encodeContainerStatus(container.record),
    info: request.verbose ? await encodeContainerInfo(call.runtime, container) : {},
  };
}
