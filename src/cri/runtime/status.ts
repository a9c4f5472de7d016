import type { StatusRequest, StatusResponse } from "../../../api/gen/cri/v1/api.ts";
import type { Call } from "../call.ts";
import { encodeConditions, encodeFeatures, encodeHandlers, encodeStatusInfo } from "../codec/encode-status.ts";

export async function status(request: StatusRequest, call: Call): Promise<StatusResponse> {
  return {
    status: { conditions: encodeConditions(call.runtime) },
    info: request.verbose ? encodeStatusInfo(call.runtime) : {},
    runtimeHandlers: encodeHandlers(call.runtime),
    features: encodeFeatures(call.runtime),
  };
}
