import type { Container, ContainerFilter, ListContainersRequest, ListContainersResponse } from "../../../api/gen/cri/v1/api.ts";
import type { Call } from "../call.ts";
import { encodeContainer } from "../codec/encode-container.ts";
import { matchContainers } from "../codec/filters.ts";

export async function listContainers(request: ListContainersRequest, call: Call): Promise<ListContainersResponse> {
  return { containers: containersNow(request.filter, call) };
}

export function containersNow(filter: ContainerFilter | undefined, call: Call): Container[] {
  return matchContainers(call.runtime, filter).map(({ record }) => encodeContainer(record));
}
