import type { PodSandboxStatusRequest, PodSandboxStatusResponse } from "../../../api/gen/cri/v1/api.ts";
import { nowNs } from "../../lib/time.ts";
import { getPod } from "../../runtime/lookup.ts";
import type { Call } from "../call.ts";
import { encodeContainerStatus } from "../codec/encode-container.ts";
import { encodePodInfo, encodePodStatus } from "../codec/encode-pod.ts";
import { requireId } from "../codec/fields.ts";

export async function podSandboxStatus(request: PodSandboxStatusRequest, call: Call): Promise<PodSandboxStatusResponse> {
  const pod = getPod(call.runtime, requireId(request.podSandboxId, "pod_sandbox_id"));
  const containers = [...pod.containers.values()].filter(({ record }) => record.state.phase !== "creating");
  return {
    status: encodePodStatus(pod.record),
    info: request.verbose ? encodePodInfo(pod.record) : {},
    containersStatuses: containers.map(({ record }) => encodeContainerStatus(record)),
    timestamp: nowNs(),
  };
}
