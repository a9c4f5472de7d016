import type { CreateContainerRequest, CreateContainerResponse } from "../../../api/gen/cri/v1/api.ts";
import { createContainer as create } from "../../runtime/create-container.ts";
import type { Call } from "../call.ts";
import { decodeContainerConfig } from "../codec/container-config.ts";
import { requireId } from "../codec/fields.ts";

export async function createContainer(request: CreateContainerRequest, call: Call): Promise<CreateContainerResponse> {
  const podId = requireId(request.podSandboxId, "pod_sandbox_id");
  const config = decodeContainerConfig(request.config);
  const containerId = await create(call.runtime, { podId, config, requestId: call.requestId }, call);
  return { containerId };
}
