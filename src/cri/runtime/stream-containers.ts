import { Container, type StreamContainersRequest, type StreamContainersResponse } from "../../../api/gen/cri/v1/api.ts";
import { inBatches } from "../batches.ts";
import type { Call } from "../call.ts";
import { containersNow } from "./list-containers.ts";

export async function* streamContainers(request: StreamContainersRequest, call: Call): AsyncGenerator<StreamContainersResponse> {
  for (const containers of inBatches(containersNow(request.filter, call), Container)) yield { containers };
}
