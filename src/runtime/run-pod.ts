import { mkdir } from "node:fs/promises";

import { podCgroup } from "../host/cgroup-paths.ts";
import { messageOf } from "../lib/coded-error.ts";
import { newId } from "../lib/ids.ts";
import { nowNs } from "../lib/time.ts";
import { RuntimeError } from "./errors.ts";
import { podFingerprint, podName } from "./identity.ts";
import { decidePlacement } from "./placement/decide-placement.ts";
import type { Placement } from "./placement/placement.ts";
import type { Sandbox } from "./pod.ts";
import { checkPodFiles } from "./pod-directory.ts";
import type { Wait } from "./realm.ts";
import { Pod, podRootDir, type Runtime } from "./runtime.ts";
import type { SandboxConfig } from "./sandbox-config.ts";
import { savePod } from "./save.ts";
import { startFlat } from "./start-flat.ts";
import { startMicrovm } from "./start-microvm.ts";
import { rollBack } from "./teardown.ts";
import { type Phase, podPhase, timed } from "./timeline.ts";
import { checkPodUserNamespace } from "./user-namespace.ts";
import { watchPod } from "./watch.ts";

export interface RunPodRequest {
  readonly config: SandboxConfig;
  readonly handler: string;
  readonly requestId: string;
}

/** How long an attempt may take that nobody may be waiting for any more. */
const ATTEMPT_TIMEOUT_MS = 240_000;

/**
 * Creates and starts a pod sandbox; resolves to its id when it is READY, its network included. On failure nothing is left behind. The
 * identical call joins an attempt under way.
 */
export async function runPod(runtime: Runtime, request: RunPodRequest, options: { readonly signal: AbortSignal }): Promise<string> {
  admit(runtime, request);
  return runtime.podNames.claim(podName(request.config), podFingerprint(request), () => attempt(runtime, request), options);
}

/** Refuses before anything is made. */
function admit(runtime: Runtime, { config }: RunPodRequest): void {
  if (runtime.shutdown.aborted)
    throw new RuntimeError({ code: "ERR_SHUTTING_DOWN" }, "the daemon is shutting down: try again when it is back");
  checkPodFiles(config);
  checkPodUserNamespace(config, runtime.options.userNamespaces);
}

async function attempt(runtime: Runtime, request: RunPodRequest): Promise<string> {
  const signal = AbortSignal.timeout(ATTEMPT_TIMEOUT_MS);
  // Here and not before the name is claimed: a call that joins, or comes for a result, takes the decision that was made.
  const timeline: Phase[] = [];
  const placement = await timed(
    "placement",
    () => decidePlacement(runtime, request, { signal }),
    (phase) => timeline.push(phase),
  );
  const pod = newPod(runtime, request, placement, timeline);
  runtime.pods.set(pod.id, pod);
  await using rollback = new AsyncDisposableStack();
  rollback.defer(() => undo(runtime, pod));
  await mkdir(podRootDir(runtime.options.rootDir, pod.id), { recursive: true, mode: 0o700 });
  await podPhase(runtime, pod, "record", () => savePod(runtime, pod));
  const sandbox = await start(runtime, pod, { signal, requestId: request.requestId });
  pod.apply({ type: "started", sandbox });
  await savePod(runtime, pod);
  rollback.move();
  watchPod(runtime, pod);
  runtime.log.info("pod sandbox is ready", { podId: pod.id, mode: placement.mode, reason: placement.reason, requestId: request.requestId });
  return pod.id;
}

function newPod(runtime: Runtime, { config, handler }: RunPodRequest, placement: Placement, timeline: readonly Phase[]): Pod {
  const id = newId();
  const refusal = runtime.refusals.find(config.metadata.uid);
  const { bootId, stateDir, cgroupDriver: driver, instanceId } = runtime.options;
  const record = {
    version: 1,
    id,
    config,
    handler,
    placement,
    bootId,
    cgroup: podCgroup({ driver, cgroupParent: config.cgroupParent, podId: id, instanceId }),
    createdAtNs: String(nowNs()),
    ...(refusal === undefined ? {} : { refusal }),
    timeline,
    state: { phase: "creating" },
  } as const;
  return new Pod(record, stateDir);
}

/** What cannot be undone becomes visible as NOTREADY, for RemovePodSandbox to try again. */
async function undo(runtime: Runtime, pod: Pod): Promise<void> {
  try {
    await rollBack(runtime, pod, { signal: AbortSignal.timeout(ATTEMPT_TIMEOUT_MS) });
  } catch (error) {
    runtime.log.error("a pod that failed to start could not be cleaned up: remove it to try again", { podId: pod.id }, error);
    pod.apply({ type: "crashed", reason: "RollbackFailed", message: messageOf(error) });
    await savePod(runtime, pod);
  }
}

function start(runtime: Runtime, pod: Pod, wait: Wait): Promise<Sandbox> {
  return pod.record.placement.mode === "microvm" ? startMicrovm(runtime, pod, wait) : startFlat(runtime, pod, wait);
}
