import type { UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse } from "../../../api/gen/cri/v1/api.ts";
import { updatePod } from "../../runtime/update-pod.ts";
import type { Call } from "../call.ts";
import { requireId } from "../codec/fields.ts";
import { decodeResources } from "../codec/resources.ts";

export async function updatePodSandboxResources(
  request: UpdatePodSandboxResourcesRequest,
  call: Call,
): Promise<UpdatePodSandboxResourcesResponse> {
  const podId = requireId(request.podSandboxId, "pod_sandbox_id");
  const overhead = request.overhead && decodeResources(request.overhead, "overhead");
  const resources = request.resources && decodeResources(request.resources, "resources");
  await updatePod(call.runtime, podId, { overhead, resources }, call);
  return {};
}
