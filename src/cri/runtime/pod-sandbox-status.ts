import type { PodSandboxStatusRequest, PodSandboxStatusResponse } from "../../../api/gen/cri/v1/api.ts";
import { nowNs } from "../../lib/time.ts";
import { getPod } from "../../runtime/lookup.ts";
import type { Call } from "../call.ts";
import { encodeContainerStatuses } from "../codec/encode-container.ts";
import { encodePodInfo, encodePodStatus } from "../codec/encode-pod.ts";
import { requireId } from "../codec/fields.ts";

export async function podSandboxStatus(request: PodSandboxStatusRequest, call: Call): Promise<PodSandboxStatusResponse> {
  const pod = getPod(call.runtime, requireId(request.podSandboxId, "pod_sandbox_id"));
  const containers = [...pod.containers.values()].map(({ record }) => record);
  return {
    status: encodePodStatus(pod.record),
    info: request.verbose ? encodePodInfo(pod.record, containers) : {},
    containersStatuses: encodeContainerStatuses(containers),
    timestamp: nowNs(),
  };
}
