import type { ListContainersRequest, ListContainersResponse } from "../../../api/gen/cri/v1/api.ts";
import type { Call } from "../call.ts";
import { encodeContainer } from "../codec/encode-container.ts";
import { matchContainers } from "../codec/filters.ts";

export async function listContainers(request: ListContainersRequest, call: Call): Promise<ListContainersResponse> {
  return { containers: matchContainers(call.runtime, request.filter).map(({ record }) => encodeContainer(record)) };
}
