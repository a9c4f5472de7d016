import type { ExecSyncRequest, ExecSyncResponse } from "../../../api/gen/cri/v1/api.ts";
import { execSync as exec } from "../../runtime/exec-sync.ts";
import type { Call } from "../call.ts";
import { requireId, secondsToMs } from "../codec/fields.ts";

/** CRI clients take messages of 16 MiB; lengths, tags and the exit code need a few bytes of it. */
const OUTPUT_BYTES = 16 * 1024 * 1024 - 1024;

export async function execSync(request: ExecSyncRequest, call: Call): Promise<ExecSyncResponse> {
  const containerId = requireId(request.containerId, "container_id");
  const timeoutMs = secondsToMs(request.timeout, "timeout");
  const { stdout, stderr, exitCode } = await exec(call.runtime, { containerId, command: request.cmd, timeoutMs }, call);
  // The shorter stream keeps its half: an error is worth more than the end of a flood.
  const most = OUTPUT_BYTES - Math.min(stdout.length, stderr.length, OUTPUT_BYTES / 2);
  return { stdout: stdout.subarray(0, most), stderr: stderr.subarray(0, most), exitCode };
}
