import type { UpdateRuntimeConfigRequest, UpdateRuntimeConfigResponse } from "../../../api/gen/cri/v1/api.ts";

/** The pod CIDR it carries is for runtimes that write the CNI configuration; ours is the operator's, so there is nothing to do. */
export async function updateRuntimeConfig(_request: UpdateRuntimeConfigRequest): Promise<UpdateRuntimeConfigResponse> {
  return {};
}
