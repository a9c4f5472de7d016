import { readdir } from "node:fs/promises";
import { join } from "node:path";

import { joinSignals, withDeadline } from "../lib/abort.ts";
import type { ContainerRecord } from "./container.ts";
import { markLost } from "./exits.ts";
import { containerFingerprint, containerName, podFingerprint, podName } from "./identity.ts";
import { layerClaimsOf } from "./image-volumes.ts";
import type { PodRecord, Sandbox } from "./pod.ts";
import { discard, remove as removeContainer } from "./remove-container.ts";
import { Container, Pod, podRootDir, podStateDir, type Runtime } from "./runtime.ts";
import { savePod } from "./save.ts";
import { rollBack, tearDown } from "./teardown.ts";
import { watchPod } from "./watch.ts";

export interface Records {
  readonly pods: readonly PodRecord[];
  readonly containers: readonly ContainerRecord[];
  /**
   * False when the database was rebuilt from the pods' own directories: what no record explains may then belong to a workload, and is
   * reported instead of swept.
   */
  readonly complete: boolean;
}

const RECOVERY_TIMEOUT_MS = 120_000;

/**
 * Brings the runtime to what was true when the last daemon ended. Pods that run are followed again; attempts that it left half done are
 * rolled back; what a reboot took is marked; what no record explains is swept. One pod that cannot be mended does not stop the others.
 */
export async function recover(runtime: Runtime, records: Records): Promise<void> {
  load(runtime, records);
  await runtime.images.recoverMounts(new Map([...runtime.containers.values()].flatMap(({ record }) => layerClaimsOf(record))));
  const signal = AbortSignal.timeout(RECOVERY_TIMEOUT_MS);
  await Promise.all(
    [...runtime.pods.values()].map((pod) =>
      recoverPod(runtime, pod, signal).catch((error: unknown) => {
        runtime.log.error("a pod could not be recovered: stop and remove it", { podId: pod.id, phase: pod.record.state.phase }, error);
      }),
    ),
  );
  await sweep(runtime, records.complete, signal);
}

function load(runtime: Runtime, records: Records): void {
  for (const record of records.pods) {
    runtime.pods.set(record.id, new Pod(record, runtime.options.stateDir));
    if (record.refusal !== undefined) runtime.refusals.remember(record.config.metadata.uid, record.refusal);
    const { phase } = record.state;
    // Only what runs is worth giving to a client that calls again.
    const claimable = phase === "ready";
    if (phase !== "creating") runtime.podNames.hold(podName(record.config), podFingerprint(record), { id: record.id, claimable });
  }
  for (const record of records.containers) {
    const pod = runtime.pods.get(record.podId);
    if (pod === undefined) {
      runtime.log.warn("a container's record names no pod: ignored", { containerId: record.id, podId: record.podId });
      continue;
    }
    const container = new Container(record, pod);
    pod.containers.set(record.id, container);
    runtime.containers.set(record.id, container);
    const { phase } = record.state;
    const held = { id: record.id, claimable: phase === "created" };
    if (phase !== "creating")
      runtime.containerNames.hold(containerName(record.podId, record.config), containerFingerprint(record.config), held);
  }
}

async function recoverPod(runtime: Runtime, pod: Pod, signal: AbortSignal): Promise<void> {
  const { state } = pod.record;
  if (pod.record.bootId !== runtime.options.bootId && state.phase !== "stopped" && state.phase !== "creating")
    return afterReboot(runtime, pod, signal);
  switch (state.phase) {
    case "creating":
      await rollBack(runtime, pod, { signal });
      runtime.log.info("rolled back a pod that the last daemon left half made", { podId: pod.id });
      return;
    case "stopping":
      return tearDown(runtime, pod, { signal });
    case "ready":
      return followAgain(runtime, pod, state.sandbox, signal);
    case "crashed":
    case "stopped":
      return;
  }
}

/** A guest may be gone, or hang: neither may keep the daemon from serving. */
const GUEST_TIMEOUT_MS = 5_000;

/** The watch finds a dead auraed or guest by itself, and replays every event that was not acknowledged. */
async function followAgain(runtime: Runtime, pod: Pod, sandbox: Sandbox, signal: AbortSignal): Promise<void> {
  using scope = sandbox.guest === undefined ? joinSignals(signal) : withDeadline(GUEST_TIMEOUT_MS, signal);
  try {
    if (runtime.host.isAlive(sandbox.auraed)) await rollBackContainers(runtime, pod, scope.signal);
  } finally {
    watchPod(runtime, pod);
  }
}

async function rollBackContainers(runtime: Runtime, pod: Pod, signal: AbortSignal): Promise<void> {
  for (const container of [...pod.containers.values()]) {
    if (container.record.state.phase === "creating") await removeContainer(runtime, container, { signal });
  }
}

/** Nothing of a pod lives through a reboot but its scratch space and its addresses: the network is given back, the containers have ended. */
async function afterReboot(runtime: Runtime, pod: Pod, signal: AbortSignal): Promise<void> {
  for (const container of [...pod.containers.values()]) {
    if (container.record.state.phase === "creating") await discard(runtime, container, { signal });
  }
  await markLost(runtime, pod, "NodeRebooted", "the node restarted while the container ran");
  pod.apply({ type: "crashed", reason: "NodeRebooted", message: "the node restarted" });
  await savePod(runtime, pod);
  await tearDown(runtime, pod, { signal });
}

/** Gives back what carries our name and belongs to no record. */
async function sweep(runtime: Runtime, complete: boolean, signal: AbortSignal): Promise<void> {
  const { rootDir, stateDir } = runtime.options;
  const stateNames = new Set([...runtime.pods.keys()].map((id) => podStateDir("", id).split("/").at(-1)));
  const strays = (await names(join(stateDir, "pods"))).filter((name) => !stateNames.has(name));
  const leases = (await runtime.network.attached()).filter((id) => !runtime.pods.has(id));
  const roots = (await names(join(rootDir, "pods"))).filter((id) => !runtime.pods.has(id));
  if (!complete && strays.length + leases.length + roots.length > 0) {
    runtime.log.warn("left alone what no record explains, because the database had to be rebuilt", {
      stateDirs: strays.join(" "),
      networks: leases.join(" "),
      rootDirs: roots.join(" "),
    });
    return;
  }
  for (const id of leases) await runtime.network.detach(id, { signal });
  for (const name of strays) {
    const dir = join(stateDir, "pods", name);
    const auraed = runtime.host.findAuraed(dir);
    if (auraed !== undefined) await runtime.host.kill(auraed, { signal });
    await runtime.host.cleanPod(dir, [], { signal });
    await runtime.host.removeTree(dir, { signal });
    runtime.log.warn("swept a pod's directory that no record explains", { dir });
  }
  for (const id of roots) await runtime.host.removeTree(podRootDir(rootDir, id), { signal });
}

async function names(dir: string): Promise<readonly string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  }
}
