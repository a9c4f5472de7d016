import type { Container as AgentContainer, Exit } from "../../api/gen/aurae/pod/v0/pod.ts";
import type { ShutdownExit } from "../../api/gen/aurae/supervisor/v0/supervisor.ts";
import { nowNs } from "../lib/time.ts";
import { type ContainerExit, type ExitReason, exitReason } from "./container.ts";
import { RuntimeError } from "./errors.ts";
import type { Container, Pod, Runtime } from "./runtime.ts";
import { saveContainer } from "./save.ts";

/** How long a SIGKILLed container may take to end: it may wait for a disk. */
export const CONTAINER_KILL_TIMEOUT_MS = 20_000;

/** Waits until the container is EXITED; throws `ERR_TIMEOUT` after `timeoutMs`. */
export async function waitExited(container: Container, timeoutMs: number, signal: AbortSignal): Promise<void> {
  if (await exitsWithin(container, timeoutMs, signal)) return;
  throw new RuntimeError(
    { code: "ERR_TIMEOUT", what: container.id },
    `container ${container.id} has not ended ${timeoutMs} ms after SIGKILL: a process of it is probably waiting for a disk or a network mount`,
  );
}

/** Whether the container is EXITED within `timeoutMs`. Throws the signal's reason when that aborts first. */
export function exitsWithin(container: Container, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const abort = () => reject(signal.reason);
  if (signal.aborted) abort();
  signal.addEventListener("abort", abort, { once: true });
  const timer = setTimeout(resolve, timeoutMs, false);
  void container.exited.then(() => resolve(true));
  return promise.finally(() => {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  });
}

/** Takes over what auraed says of a container: its events and its snapshots say the same thing. Durable when it resolves. */
export async function applyAgentState(runtime: Runtime, pod: Pod, seen: AgentContainer): Promise<void> {
  const container = pod.containers.get(seen.containerId);
  if (container === undefined) return;
  const before = container.record.state.phase;
  // A container whose creation is under way is the creator's to move on.
  if (before === "creating") return;
  if (seen.startedAtNs !== 0n) container.apply({ type: "started", startedAtNs: String(seen.startedAtNs) });
  if (seen.exit !== undefined) container.apply(exited(seen.startedAtNs, seen.exit));
  const { phase } = container.record.state;
  // An exit whose save failed was not acknowledged, and comes again.
  if (phase !== before || (phase === "exited" && !container.announced.has("stopped"))) await saveContainer(runtime, container);
}

export async function applyShutdownExits(runtime: Runtime, pod: Pod, exits: readonly ShutdownExit[]): Promise<void> {
  for (const { containerId, exitCode, oomKilled, finishedAtNs } of exits) {
    const container = pod.containers.get(containerId);
    if (container === undefined || container.record.state.phase === "exited") continue;
    container.apply(exited(startedAt(container), { code: exitCode, oomKilled, finishedAtNs }));
    await saveContainer(runtime, container);
  }
}

/** Marks every container that ran as ended in a way that nobody saw: exit code 255. */
export async function markLost(runtime: Runtime, pod: Pod, reason: ExitReason, message: string): Promise<void> {
  const exit: ContainerExit = { finishedAtNs: String(nowNs()), exitCode: 255, reason, message };
  for (const container of pod.containers.values()) {
    const { phase } = container.record.state;
    if (phase === "exited" || phase === "creating") continue;
    container.apply({ type: "exited", startedAtNs: String(startedAt(container)), exit });
    await saveContainer(runtime, container);
  }
}

function startedAt(container: Container): bigint {
  const { state } = container.record;
  return state.phase === "running" ? BigInt(state.startedAtNs) : 0n;
}

function exited(startedAtNs: bigint, exit: Exit) {
  const { code, oomKilled, finishedAtNs } = exit;
  const facts = { finishedAtNs: String(finishedAtNs), exitCode: code, reason: exitReason(code, oomKilled), message: "" };
  return { type: "exited", startedAtNs: String(startedAtNs), exit: facts } as const;
}
