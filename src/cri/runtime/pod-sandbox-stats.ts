import type { PodSandboxStatsRequest, PodSandboxStatsResponse } from "../../../api/gen/cri/v1/api.ts";
import { getPod, readySandbox } from "../../runtime/lookup.ts";
import { samplePod } from "../../runtime/stats.ts";
import type { Call } from "../call.ts";
import { encodePodStats } from "../codec/encode-stats.ts";
import { requireId } from "../codec/fields.ts";

export async function podSandboxStats(request: PodSandboxStatsRequest, call: Call): Promise<PodSandboxStatsResponse> {
  const pod = getPod(call.runtime, requireId(request.podSandboxId, "pod_sandbox_id"));
  readySandbox(pod);
  const sample = await samplePod(call.runtime, pod, call);
  return { stats: sample === undefined ? undefined : encodePodStats(call.runtime, sample) };
}
