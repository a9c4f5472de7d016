import { mkdir } from "node:fs/promises";

import { PodServiceService } from "../../api/gen/aurae/pod/v0/pod.ts";
import { SupervisorServiceService } from "../../api/gen/aurae/supervisor/v0/supervisor.ts";
import { CONTRACT_VERSION } from "../agent/agent.ts";
import { AgentError } from "../agent/errors.ts";
import { podCgroup } from "../host/cgroup-paths.ts";
import { messageOf } from "../lib/coded-error.ts";
import { failpoint } from "../lib/failpoint.ts";
import { newId } from "../lib/ids.ts";
import { nowNs } from "../lib/time.ts";
import { agentCgroup } from "./cgroup.ts";
import { decidePlacement } from "./decide-placement.ts";
import { RuntimeError } from "./errors.ts";
import { podFingerprint, podName } from "./identity.ts";
import type { Placement } from "./placement.ts";
import type { NamespacePaths, Sandbox } from "./pod.ts";
import { checkPodFiles, podFilePaths, podHostname, writePodFiles } from "./pod-directory.ts";
import type { PodNetwork } from "./ports.ts";
import { Pod, podRootDir, podStateDir, type Runtime } from "./runtime.ts";
import type { SandboxConfig } from "./sandbox-config.ts";
import { savePod } from "./save.ts";
import { rollBack } from "./teardown.ts";
import { type Phase, podPhase, timed } from "./timeline.ts";
import { watchPod } from "./watch.ts";

export interface RunPodRequest {
  readonly config: SandboxConfig;
  readonly handler: string;
  readonly requestId: string;
}

/** How long an attempt may take that nobody may be waiting for any more. */
const ATTEMPT_TIMEOUT_MS = 240_000;

/** Default size of a pod's /dev/shm, as other runtimes have it. */
const SHM_SIZE_BYTES = 64n * 1024n * 1024n;

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
  if (config.namespaces.user !== undefined)
    throw new RuntimeError({ code: "ERR_NOT_BUILT", what: "user namespaces" }, "user namespaces are not built yet: remove userns_options");
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
  if (placement.mode === "microvm")
    throw new RuntimeError({ code: "ERR_NOT_BUILT", what: "microVM pods" }, "microVM pods are not built yet");
  const pod = newPod(runtime, request, placement, timeline);
  runtime.pods.set(pod.id, pod);
  await using rollback = new AsyncDisposableStack();
  rollback.defer(() => undo(runtime, pod));
  await mkdir(podRootDir(runtime.options.rootDir, pod.id), { recursive: true, mode: 0o700 });
  await podPhase(runtime, pod, "record", () => savePod(runtime, pod));
  const sandbox = await startFlat(runtime, pod, request.requestId, signal);
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

async function startFlat(runtime: Runtime, pod: Pod, requestId: string, signal: AbortSignal): Promise<Sandbox> {
  const { stateDir } = runtime.options;
  const { config } = pod.record;
  const dir = podStateDir(stateDir, pod.id);
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const auraed = await podPhase(runtime, pod, "supervisor", () => runtime.host.startAuraed(dir, { signal }));
  failpoint("runtime.pod.auraed.after");
  const namespaces = await podPhase(runtime, pod, "namespaces", () => createNamespaces(runtime, pod, requestId, signal));
  failpoint("runtime.pod.namespaces.after");
  const onHost = config.namespaces.network === "node";
  const network = onHost ? undefined : await podPhase(runtime, pod, "network", () => attach(runtime, pod, namespaces, signal));
  failpoint("runtime.pod.network.after");
  await podPhase(runtime, pod, "pod-files", () => writePodFiles(runtime.options, pod.record, network));
  return { auraed, namespaces, network };
}

function attach(runtime: Runtime, pod: Pod, namespaces: NamespacePaths, signal: AbortSignal): Promise<PodNetwork> {
  const { metadata, portMappings } = pod.record.config;
  const request = {
    podId: pod.id,
    podName: metadata.name,
    podNamespace: metadata.namespace,
    podUid: metadata.uid,
    netnsPath: namespaces.network,
    portMappings: portMappings.filter((mapping) => mapping.hostPort !== 0),
  };
  return runtime.network.attach(request, { signal });
}

async function createNamespaces(runtime: Runtime, pod: Pod, requestId: string, signal: AbortSignal): Promise<NamespacePaths> {
  const options = { signal, requestId };
  await greet(pod, options);
  const { config } = pod.record;
  const { namespaces } = config;
  const files = podFilePaths(runtime.options.stateDir, pod.id);
  const made = await pod.agent.call(
    SupervisorServiceService.createSandbox,
    {
      podId: pod.id,
      namespaces: {
        network: namespaces.network !== "node",
        ipc: namespaces.ipc !== "node",
        // A pod on the host's network has the host's name too.
        uts: namespaces.network !== "node",
        pid: namespaces.pid === "pod",
      },
      hostname: namespaces.network === "node" ? "" : podHostname(runtime.options, config),
      sysctls: config.sysctls,
      namespacesPath: files.namespaces,
      shmSizeBytes: namespaces.ipc === "node" ? 0n : SHM_SIZE_BYTES,
      shmPath: files.shm,
      cgroup: agentCgroup(pod.id, pod.record.cgroup),
      uidMappings: [],
      gidMappings: [],
    },
    options,
  );
  return { network: made.networkPath, ipc: made.ipcPath, uts: made.utsPath, pid: made.pidPath, user: made.userPath };
}

async function greet(pod: Pod, options: { readonly signal: AbortSignal; readonly requestId: string }): Promise<void> {
  const { contractVersion } = await pod.agent.call(PodServiceService.hello, { contractVersion: CONTRACT_VERSION, features: [] }, options);
  if (contractVersion === CONTRACT_VERSION) return;
  throw new AgentError(
    { code: "ERR_AGENT_VERSION", contractVersion },
    `auraed speaks contract version ${contractVersion}, the daemon ${CONTRACT_VERSION}: install both from one release`,
  );
}
