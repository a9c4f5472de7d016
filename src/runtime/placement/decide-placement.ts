import { isTimeout, withDeadline } from "../../lib/abort.ts";
import { RuntimeError } from "../errors.ts";
import type { Runtime } from "../runtime.ts";
import type { SandboxConfig } from "../sandbox-config.ts";
import { HANDLERS, type Placement, type PlacementInput, type PlacementRefusal, place } from "./placement.ts";

/** Longer than a trial boot, and well below the kubelet's four minutes for RunPodSandbox. */
const VERDICT_TIMEOUT_MS = 30_000;

/**
 * Decides where a pod runs, and counts the answer. Waits for the first verdict when it depends on that; before a pod is refused for what the
 * node lacks, the node is looked at again: it may have been mended. Throws `ERR_PLACEMENT`.
 */
export async function decidePlacement(
  runtime: Runtime,
  request: { readonly config: SandboxConfig; readonly handler: string },
  options: { readonly signal: AbortSignal },
): Promise<Placement> {
  const decided = await reconsider(runtime, request, options);
  runtime.metrics.podPlaced({ mode: decided.mode, reason: decided.reason, handler: handlerLabel(request.handler) });
  if (decided.mode === "refused") throw new RuntimeError({ code: "ERR_PLACEMENT", reason: decided.reason }, decided.message);
  return decided;
}

async function reconsider(
  runtime: Runtime,
  request: { readonly config: SandboxConfig; readonly handler: string },
  options: { readonly signal: AbortSignal },
): Promise<Placement | PlacementRefusal> {
  const { virtualization } = runtime;
  const now = place(inputOf(runtime, request));
  const { reason } = now;
  if (reason !== "VirtualizationUnknown" && reason !== "RequiresVirtualization") return now;
  using deadline = withDeadline(VERDICT_TIMEOUT_MS, options.signal);
  try {
    await (reason === "VirtualizationUnknown" ? virtualization.settled(deadline) : virtualization.lookAgain(deadline));
  } catch (error) {
    // Nothing new in time: the refusal says what is known, and what to do.
    if (options.signal.aborted || !isTimeout(deadline.signal.reason)) throw error;
  }
  return place(inputOf(runtime, request));
}

function inputOf(runtime: Runtime, { config, handler }: { readonly config: SandboxConfig; readonly handler: string }): PlacementInput {
  return {
    config,
    handler,
    policy: runtime.options.policy,
    virtualization: runtime.virtualization.report(),
    earlierRefusal: runtime.refusals.find(config.metadata.uid)?.message,
  };
}

/** A name that is none of ours is the client's text, and would make a time series each. */
function handlerLabel(handler: string): string {
  return HANDLERS.some((known) => known === handler) ? handler : "unknown";
}
