import type { ExecRequest, ExecResponse } from "../../../api/gen/cri/v1/api.ts";
import { prepareExec } from "../../runtime/stream-request.ts";
import type { Call } from "../call.ts";
import { requireId } from "../codec/fields.ts";

export async function exec(request: ExecRequest, call: Call): Promise<ExecResponse> {
  const containerId = requireId(request.containerId, "container_id");
  const { cmd: command, tty: terminal, stdin, stdout, stderr } = request;
  return { url: call.streamUrls.register(prepareExec(call.runtime, { containerId, command, terminal, stdin, stdout, stderr })) };
}
