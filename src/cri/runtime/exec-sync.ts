import type { ExecSyncRequest, ExecSyncResponse } from "../../../api/gen/cri/v1/api.ts";
import { execSync as exec } from "../../runtime/exec-sync.ts";
import type { Call } from "../call.ts";
import { requireId, secondsToMs } from "../codec/fields.ts";

export async function execSync(request: ExecSyncRequest, call: Call): Promise<ExecSyncResponse> {
  const containerId = requireId(request.containerId, "container_id");
  const timeoutMs = secondsToMs(request.timeout, "timeout");
  const { stdout, stderr, exitCode } = await exec(call.runtime, { containerId, command: request.cmd, timeoutMs }, call);
  return { stdout, stderr, exitCode };
}
