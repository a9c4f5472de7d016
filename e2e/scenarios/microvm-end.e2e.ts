import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { status } from "@grpc/grpc-js";

import type { ContainerStatus } from "../../api/gen/cri/v1/api.ts";
import { ContainerState, PodSandboxState } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { unary } from "../harness/cri-client.ts";
import { leases } from "../harness/leaks.ts";
import { machineOf } from "../harness/machine.ts";
import type { Pod } from "../harness/pod.ts";
import { runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const skip = runtimeUnderTest() === "containerd" ? "about our microVMs" : false;
const node = useNode({ pods: "both" });
const inVm = { runtimeHandler: "aurae-vm" };

beforeEach(async () => {
  if (!node().daemon.isRunning) await node().startDaemon();
});

async function crashOf(pod: Pod): Promise<{ readonly reason: string; readonly message: string } | undefined> {
  const { runtime } = node().clients;
  const { info } = await unary(runtime, runtime.podSandboxStatus, { podSandboxId: pod.id, verbose: true });
  return (JSON.parse(info["info"] ?? "") as { crash?: { reason: string; message: string } }).crash;
}

async function waitNotReady(pod: Pod): Promise<void> {
  await waitFor("the pod to be NOTREADY", async () => (await pod.status()).state === PodSandboxState.SANDBOX_NOTREADY);
}

function assertLost(ended: ContainerStatus, reason: string): void {
  assert.deepEqual([ended.state, ended.reason], [ContainerState.CONTAINER_EXITED, reason]);
  assert.notEqual(ended.exitCode, 0);
  assert.ok(ended.finishedAt >= ended.startedAt && ended.finishedAt > 0n);
}

/** Stops and removes it, and looks for what is left. */
async function assertCleanedUp(pod: Pod, pids: readonly number[]): Promise<void> {
  await pod.stop();
  assert.deepEqual(await leases(node().prefix), []);
  await pod.stop();
  await pod.remove();
  for (const pid of pids) await waitFor(`the end of process ${pid}`, () => !existsSync(`/proc/${pid}`));
  const { runtime } = node().clients;
  assert.deepEqual((await unary(runtime, runtime.listContainers, { filter: undefined })).containers, []);
}

test("QEMU is killed: its containers EXITED, the pod NOTREADY, and what ended before keeps its end", { skip }, async () => {
  await using pod = await node().runPod(inVm);
  const running = await pod.start({ command: ["/bin/sh", "-c", "echo said; sleep 1000"] });
  const created = await pod.create();
  const ended = await pod.start({ command: ["/bin/sh", "-c", "exit 7"] });
  await ended.waitExited();
  await waitFor("its line", async () => (await running.logText("stdout")) === "said\n");
  const { auraedPid, qemuPid } = await machineOf(node().prefix, pod.id);
  process.kill(qemuPid, "SIGKILL");
  const lost = await running.waitExited();
  assertLost(lost, "SandboxCrashed");
  assert.match(lost.message, /microVM ended.*137/);
  assertLost(await created.waitExited(), "SandboxCrashed");
  assert.equal((await ended.status()).exitCode, 7);
  await waitNotReady(pod);
  assert.equal((await crashOf(pod))?.reason, "SandboxCrashed");
  assert.equal(await running.logText("stdout"), "said\n");
  const refused = (message: RegExp) => ({ code: status.FAILED_PRECONDITION, message });
  await assertRefused(node().kind, running.exec(["/bin/true"]), refused(/not running|exited/));
  await assertRefused(node().kind, pod.create(), refused(/must be READY/));
  await assertCleanedUp(pod, [auraedPid, qemuPid]);
});

test("QEMU is killed while the daemon is down: the next daemon says the same", { skip }, async () => {
  await using pod = await node().runPod(inVm);
  const running = await pod.start();
  const endsBefore = await pod.start({ command: ["/bin/sh", "-c", "sleep 0.3; echo last words; exit 9"] });
  const { auraedPid, qemuPid } = await machineOf(node().prefix, pod.id);
  await node().kill9();
  await waitFor("a container to end without the daemon", async () => (await endsBefore.logText("stdout")) === "last words\n");
  // Its end follows its last words: nothing that the test could wait for tells of it while the daemon is down.
  await sleep(500);
  process.kill(qemuPid, "SIGKILL");
  await waitFor("QEMU's end", () => !existsSync(`/proc/${qemuPid}`));
  await node().startDaemon();
  assertLost(await running.waitExited(), "SandboxCrashed");
  const { exitCode, reason } = await endsBefore.status();
  assert.deepEqual([exitCode, reason], [9, "Error"], "an end that the pod's auraed had seen is kept");
  await waitNotReady(pod);
  assert.equal((await crashOf(pod))?.reason, "SandboxCrashed");
  await assertCleanedUp(pod, [auraedPid, qemuPid]);
});

test("`auraed vm` is killed: QEMU does not outlive it, AuraedCrashed", { skip }, async () => {
  await using pod = await node().runPod(inVm);
  const container = await pod.start();
  const { auraedPid, qemuPid } = await machineOf(node().prefix, pod.id);
  process.kill(auraedPid, "SIGKILL");
  await waitFor("QEMU's end", () => !existsSync(`/proc/${qemuPid}`));
  assertLost(await container.waitExited(), "AuraedCrashed");
  await waitNotReady(pod);
  assert.equal((await crashOf(pod))?.reason, "AuraedCrashed");
  await assertCleanedUp(pod, [auraedPid, qemuPid]);
});

test("a pod's next attempt runs while the crashed one is still there", { skip }, async () => {
  await using pod = await node().runPod(inVm);
  const { qemuPid } = await machineOf(node().prefix, pod.id);
  process.kill(qemuPid, "SIGKILL");
  await waitNotReady(pod);
  const { metadata } = pod.config;
  assert.ok(metadata !== undefined);
  await using next = await node().runPod({ ...inVm, metadata: { ...metadata, attempt: metadata.attempt + 1 } });
  assert.equal((await (await next.start()).exec(["/bin/true"])).exitCode, 0);
});
