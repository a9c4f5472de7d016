import type { AttachRequest, AttachResponse } from "../../../api/gen/cri/v1/api.ts";
import { prepareAttach } from "../../runtime/stream-request.ts";
import type { Call } from "../call.ts";
import { requireId } from "../codec/fields.ts";

export async function attach(request: AttachRequest, call: Call): Promise<AttachResponse> {
  const containerId = requireId(request.containerId, "container_id");
  const { tty: terminal, stdin, stdout, stderr } = request;
  return { url: call.streamUrls.register(prepareAttach(call.runtime, { containerId, terminal, stdin, stdout, stderr })) };
}
