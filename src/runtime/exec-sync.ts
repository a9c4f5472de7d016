import { status } from "@grpc/grpc-js";

import { type ExecSyncResponse, PodServiceService } from "../../api/gen/aurae/pod/v0/pod.ts";
import { AgentError } from "../agent/errors.ts";
import { joinSignals, withDeadline } from "../lib/abort.ts";
import { invalid, RuntimeError } from "./errors.ts";
import { getRunningContainer } from "./lookup.ts";
import type { Runtime } from "./runtime.ts";

/** Output kept of each stream; the rest is read and dropped. CRI clients accept no larger message. */
const OUTPUT_LIMIT_BYTES = 16n * 1024n * 1024n;

/** How long after its time a command may take to be killed. */
const ANSWER_GRACE_MS = 5_000;

/** Runs a command in a RUNNING container to its end. After `timeoutMs` (0: none) its whole process tree is killed and `ERR_TIMEOUT` thrown. */
export async function execSync(
  runtime: Runtime,
  request: { readonly containerId: string; readonly command: readonly string[]; readonly timeoutMs: number },
  options: { readonly signal: AbortSignal; readonly requestId: string },
): Promise<ExecSyncResponse> {
  if (request.command.length === 0) throw invalid("cmd", "must hold at least the program to run");
  const container = getRunningContainer(runtime, request.containerId);
  const { command, timeoutMs } = request;
  // Auraed keeps the time, and kills. Ours is for one that does not answer any more: a guest can hang.
  using scope = timeoutMs === 0 ? joinSignals(options.signal) : withDeadline(timeoutMs + ANSWER_GRACE_MS, options.signal);
  try {
    return await container.pod.agent.call(
      PodServiceService.execSync,
      { containerId: container.id, command: [...command], timeoutMs: BigInt(timeoutMs), outputLimitBytes: OUTPUT_LIMIT_BYTES },
      { signal: scope.signal, requestId: options.requestId },
    );
  } catch (error) {
    const told = `command ${JSON.stringify(command)} timed out after ${timeoutMs} ms`;
    if (error instanceof AgentError && error.fact.code === "ERR_AGENT_REFUSED" && error.fact.status === status.DEADLINE_EXCEEDED)
      throw new RuntimeError({ code: "ERR_TIMEOUT", what: container.id }, `${told} and was killed`);
    options.signal.throwIfAborted();
    if (!scope.signal.aborted) throw error;
    throw new RuntimeError({ code: "ERR_TIMEOUT", what: container.id }, `${told}, and the pod's auraed does not say whether it was killed`);
  }
}
