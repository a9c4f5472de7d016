import type { ReopenContainerLogRequest, ReopenContainerLogResponse } from "../../../api/gen/cri/v1/api.ts";
import { reopenLog } from "../../runtime/reopen-log.ts";
import type { Call } from "../call.ts";
import { requireId } from "../codec/fields.ts";

export async function reopenContainerLog(request: ReopenContainerLogRequest, call: Call): Promise<ReopenContainerLogResponse> {
  await reopenLog(call.runtime, requireId(request.containerId, "container_id"), call);
  return {};
}
