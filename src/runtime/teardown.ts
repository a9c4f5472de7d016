import { PodServiceService } from "../../api/gen/aurae/pod/v0/pod.ts";
import { SupervisorServiceService } from "../../api/gen/aurae/supervisor/v0/supervisor.ts";
import { withDeadline } from "../lib/abort.ts";
import { ownedCgroups } from "./cgroup.ts";
import { applyShutdownExits, CONTAINER_KILL_TIMEOUT_MS, markLost, waitExited } from "./exits.ts";
import { layerClaimsOf } from "./image-volumes.ts";
import { sandboxOf } from "./pod.ts";
import { type Pod, podRootDir, podStateDir, type Runtime } from "./runtime.ts";
import { forgetPod, savePod } from "./save.ts";

const SIGKILL = 9;

interface TeardownStep {
  readonly name: string;
  readonly undo: (runtime: Runtime, pod: Pod, options: { readonly signal: AbortSignal }) => Promise<void>;
}

/**
 * Everything that is ever made for a pod outside its durable directory, in the order in which it is given back. Rollback, StopPodSandbox,
 * RemovePodSandbox and the daemon's start all run this list; each step succeeds when there is nothing to do.
 */
const STEPS: readonly TeardownStep[] = [
  { name: "containers", undo: killContainers },
  { name: "network", undo: (runtime, pod, options) => runtime.network.detach(pod.id, options) },
  { name: "supervisor", undo: stopSupervisor },
  { name: "layers", undo: releaseLayers },
];

/** Tears the pod down and records it as stopped. Throws the first step's failure; the identical call continues. */
export async function tearDown(runtime: Runtime, pod: Pod, options: { readonly signal: AbortSignal }): Promise<void> {
  if (pod.record.state.phase === "stopped") return;
  pod.apply({ type: "stop" });
  // What the record is for is a daemon that dies meanwhile; what makes room on a full disk is the teardown.
  await savePod(runtime, pod).catch((error: unknown) => {
    runtime.log.error("it cannot be recorded that a pod is being stopped: stopping it all the same", { podId: pod.id }, error);
  });
  await giveBack(runtime, pod, options);
  pod.apply({ type: "torn-down" });
  await savePod(runtime, pod);
}

/** Undoes a pod that never became READY. Its record stays `creating` until the end, so that a daemon killed meanwhile begins this again. */
export async function rollBack(runtime: Runtime, pod: Pod, options: { readonly signal: AbortSignal }): Promise<void> {
  await giveBack(runtime, pod, options);
  await forgetPod(runtime, pod);
  await runtime.host.removeTree(podRootDir(runtime.options.rootDir, pod.id), options);
  runtime.pods.delete(pod.id);
}

async function giveBack(runtime: Runtime, pod: Pod, options: { readonly signal: AbortSignal }): Promise<void> {
  for (const step of STEPS) {
    runtime.log.debug("pod teardown", { podId: pod.id, step: step.name });
    await step.undo(runtime, pod, options);
  }
}

/** So that a container that obeys SIGKILL has ended, with its log complete, while the pod's network still stands. */
async function killContainers(runtime: Runtime, pod: Pod, options: { readonly signal: AbortSignal }): Promise<void> {
  const sandbox = sandboxOf(pod.record.state);
  if (sandbox === undefined || !runtime.host.isAlive(sandbox.auraed)) return;
  if (sandbox.guest === undefined) return killEach(pod, options);
  using scope = withDeadline(GUEST_KILL_TIMEOUT_MS, options.signal);
  try {
    await killEach(pod, scope);
  } catch (error) {
    options.signal.throwIfAborted();
    runtime.log.warn("the guest did not kill its containers: they end with it", { podId: pod.id }, error);
  }
}

/** A guest may be dead, hung or hostile. */
const GUEST_KILL_TIMEOUT_MS = 5_000;

async function killEach(pod: Pod, { signal }: { readonly signal: AbortSignal }): Promise<void> {
  const alive = [...pod.containers.values()].filter(({ record }) => record.state.phase === "created" || record.state.phase === "running");
  await Promise.all(
    alive.map(async (container) => {
      await pod.agent.call(PodServiceService.signalContainer, { containerId: container.id, signal: SIGKILL, all: true }, { signal });
      await waitExited(container, CONTAINER_KILL_TIMEOUT_MS, signal);
    }),
  );
}

/** Auraed undoes what it made; when it is dead or does not manage, the host's helper does. */
async function stopSupervisor(runtime: Runtime, pod: Pod, options: { readonly signal: AbortSignal }): Promise<void> {
  const dir = podStateDir(runtime.options.stateDir, pod.id);
  const auraed = runtime.host.findAuraed(dir);
  const clean = auraed !== undefined && (await shutDown(runtime, pod, options));
  if (auraed !== undefined) await runtime.host.kill(auraed, options);
  pod.disconnect();
  await markLost(runtime, pod, "AuraedCrashed", "nobody saw the container end before its pod was stopped");
  if (!clean) await runtime.host.cleanPod(dir, ownedCgroups(runtime, pod), options);
  await runtime.host.removeTree(dir, options);
}

/** Whether auraed answered that all is undone. */
async function shutDown(runtime: Runtime, pod: Pod, { signal }: { readonly signal: AbortSignal }): Promise<boolean> {
  using scope = withDeadline(SHUTDOWN_TIMEOUT_MS, signal);
  try {
    const { exits } = await pod.agent.call(SupervisorServiceService.shutdown, {}, scope);
    await applyShutdownExits(runtime, pod, exits);
    return true;
  } catch (error) {
    runtime.log.warn("auraed did not shut down: cleaning up from outside", { podId: pod.id }, error);
    return false;
  }
}

/** Long enough for a SIGKILLed container that waits for a disk. */
const SHUTDOWN_TIMEOUT_MS = 20_000;

async function releaseLayers(runtime: Runtime, pod: Pod): Promise<void> {
  for (const { record } of pod.containers.values()) {
    for (const [owner] of layerClaimsOf(record)) await runtime.images.releaseLayers(owner);
  }
}
