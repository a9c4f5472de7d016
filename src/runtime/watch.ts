import { setTimeout as sleep } from "node:timers/promises";

import { PodServiceService } from "../../api/gen/aurae/pod/v0/pod.ts";
import { VmState } from "../../api/gen/aurae/supervisor/v0/vm.ts";
import { messageOf } from "../lib/coded-error.ts";
import { ownedCgroups } from "./cgroup.ts";
import { applyAgentState, markLost } from "./exits.ts";
import type { CrashReason } from "./pod.ts";
import { type Pod, podStateDir, type Runtime } from "./runtime.ts";
import { savePod } from "./save.ts";
import { vmEnd, vmStatus } from "./vm-status.ts";

const RECONNECT_DELAY_MS = 100;

/**
 * Follows a pod's auraed for as long as the pod is ready: applies each event, and acknowledges it when it is durable. A lost connection is
 * made anew; a dead auraed makes the pod NOTREADY and its containers EXITED.
 */
export function watchPod(runtime: Runtime, pod: Pod): void {
  follow(runtime, pod).catch((error: unknown) => {
    if (!runtime.shutdown.aborted) runtime.log.error("pod watch failed", { podId: pod.id }, error);
  });
}

async function follow(runtime: Runtime, pod: Pod): Promise<void> {
  for (;;) {
    try {
      await followConnection(runtime, pod);
    } catch (error) {
      runtime.log.debug("pod event stream ended", { podId: pod.id, cause: messageOf(error) });
    }
    const { state } = pod.record;
    if (state.phase !== "ready" || runtime.shutdown.aborted) return;
    if (!runtime.host.isAlive(state.sandbox.auraed)) return supervisorDied(runtime, pod);
    if (state.sandbox.guest !== undefined && (await vmDied(runtime, pod))) return;
    await sleep(RECONNECT_DELAY_MS, undefined, { signal: runtime.shutdown });
  }
}

async function followConnection(runtime: Runtime, pod: Pod): Promise<void> {
  const options = { signal: runtime.shutdown };
  // From the start: auraed forgets what was acknowledged.
  for await (const event of pod.agent.events(0n, options)) {
    if (event.container !== undefined) await applyAgentState(runtime, pod, event.container);
    await pod.agent.call(PodServiceService.acknowledgeEvents, { through: event.number }, options);
  }
}

/** The containers went down with their parent; what they left is cleaned, the record stays for the kubelet to see. */
async function supervisorDied(runtime: Runtime, pod: Pod): Promise<void> {
  await crash(runtime, pod, { reason: "AuraedCrashed", message: "the pod's auraed died" }, async () => {
    pod.disconnect();
    await runtime.host.cleanPod(podStateDir(runtime.options.stateDir, pod.id), ownedCgroups(runtime, pod), { signal: runtime.shutdown });
    await markLost(runtime, pod, "AuraedCrashed", "the pod's auraed died and took the container with it");
  });
}

/** Whether the pod's VM has ended, and with it its containers. Its auraed stays: the pod's teardown ends that. */
async function vmDied(runtime: Runtime, pod: Pod): Promise<boolean> {
  // An auraed that does not answer is ending itself, which shows a moment later: the caller looks again.
  const status = await vmStatus(pod, { signal: runtime.shutdown }).catch((error: unknown) => {
    runtime.log.debug("a pod's auraed does not say how its microVM is", { podId: pod.id, cause: messageOf(error) });
    return undefined;
  });
  if (status?.state !== VmState.VM_STATE_EXITED) return false;
  const reason = status.oomKilled ? "OOMKilled" : "SandboxCrashed";
  const message = `the pod's microVM ended: ${vmEnd(status)}`;
  await crash(runtime, pod, { reason, message }, () => markLost(runtime, pod, reason, message));
  return true;
}

async function crash(
  runtime: Runtime,
  pod: Pod,
  end: { readonly reason: CrashReason; readonly message: string },
  mark: () => Promise<void>,
) {
  await runtime.actions.run(pod.id, runtime.shutdown, async () => {
    if (pod.record.state.phase !== "ready") return;
    pod.apply({ type: "crashed", ...end });
    runtime.log.error("a pod ended by itself and is NOTREADY", { podId: pod.id, ...end });
    await mark();
    await savePod(runtime, pod);
  });
}
