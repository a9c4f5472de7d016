import type { ListPodSandboxRequest, ListPodSandboxResponse } from "../../../api/gen/cri/v1/api.ts";
import type { Call } from "../call.ts";
import { encodePod } from "../codec/encode-pod.ts";
import { matchPods } from "../codec/filters.ts";

export async function listPodSandbox(request: ListPodSandboxRequest, call: Call): Promise<ListPodSandboxResponse> {
  return { items: matchPods(call.runtime, request.filter).map(({ record }) => encodePod(record)) };
}
