import { PodServiceService } from "../../api/gen/aurae/pod/v0/pod.ts";
import { CONTAINER_KILL_TIMEOUT_MS, exitsWithin, waitExited } from "./exits.ts";
import { findContainer } from "./lookup.ts";
import type { Container, Runtime } from "./runtime.ts";

const SIGKILL = 9;

/**
 * Ends a container: its stop signal to the first process, and SIGKILL to all of it when it still runs after `graceMs`. Returns when it is EXITED.
 * An unknown or ended container is success. Of several calls the shortest grace wins.
 */
export async function stopContainer(
  runtime: Runtime,
  id: string,
  graceMs: number,
  options: { readonly signal: AbortSignal },
): Promise<void> {
  const container = findContainer(runtime, id);
  if (container === undefined || container.record.state.phase === "exited") return;
  // A process that was never started has no handler for a stop signal.
  if (graceMs > 0 && container.record.state.phase === "running") {
    await signalContainer(container, container.record.stopSignal, false, options.signal);
    if (await exitsWithin(container, graceMs, options.signal)) return;
  }
  await killContainer(container, options);
}

/** SIGKILLs everything of the container and waits until it is EXITED. */
export async function killContainer(container: Container, { signal }: { readonly signal: AbortSignal }): Promise<void> {
  await signalContainer(container, SIGKILL, true, signal);
  await waitExited(container, CONTAINER_KILL_TIMEOUT_MS, signal);
}

/** Not through the pod's queue: a long grace must not hold up the pod. */
async function signalContainer(container: Container, number: number, all: boolean, signal: AbortSignal): Promise<void> {
  if (container.record.state.phase === "exited") return;
  await container.pod.agent.call(PodServiceService.signalContainer, { containerId: container.id, signal: number, all }, { signal });
}
