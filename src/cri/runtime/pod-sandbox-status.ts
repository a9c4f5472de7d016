import type { PodSandboxStatusRequest, PodSandboxStatusResponse } from "../../../api/gen/cri/v1/api.ts";
import { nowNs } from "../../lib/time.ts";
import { getPod } from "../../runtime/lookup.ts";
import type { Call } from "../call.ts";
import { encodeContainerStatuses } from "../codec/encode-container.ts";
import { encodePodInfo, encodePodStatus } from "../codec/encode-pod.ts";
import { requireId } from "../codec/fields.ts";

export async function podSandboxStatus(request: PodSandboxStatusRequest, call: Call): Promise<PodSandboxStatusResponse> {
  const pod = getPod(call.runtime, requireId(request.podSandboxId, "pod_sandbox_id"));
  return {
    status: encodePodStatus(pod.record),
    info: request.verbose ? encodePodInfo(pod.record) : {},
    containersStatuses: encodeContainerStatuses([...pod.containers.values()].map(({ record }) => record)),
    timestamp: nowNs(),
  };
}
