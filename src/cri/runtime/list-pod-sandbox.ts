import type { ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxFilter } from "../../../api/gen/cri/v1/api.ts";
import type { Call } from "../call.ts";
import { encodePod } from "../codec/encode-pod.ts";
import { matchPods } from "../codec/filters.ts";

export async function listPodSandbox(request: ListPodSandboxRequest, call: Call): Promise<ListPodSandboxResponse> {
  return { items: podSandboxesNow(request.filter, call) };
}

export function podSandboxesNow(filter: PodSandboxFilter | undefined, call: Call): PodSandbox[] {
  return matchPods(call.runtime, filter).map(({ record }) => encodePod(record));
}
