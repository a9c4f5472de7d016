import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { status } from "@grpc/grpc-js";

import { PodSandboxState } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { unary } from "../harness/cri-client.ts";
import { machineOf } from "../harness/machine.ts";
import type { Pod } from "../harness/pod.ts";
import { runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";

const skip = runtimeUnderTest() === "containerd" ? "about our microVMs" : false;
const node = useNode({ pods: "both" });

/** Far below what a client waits for: the kubelet two minutes. */
const PATIENCE_MS = 15_000;

beforeEach(async () => {
  if (!node().daemon.isRunning) await node().startDaemon();
});

/** A guest that hangs, as one does that waits for a disk or whose host is out of memory. Goes on when disposed. */
async function freeze(pod: Pod): Promise<Disposable> {
  const { qemuPid } = await machineOf(node().prefix, pod.id);
  process.kill(qemuPid, "SIGSTOP");
  return {
    [Symbol.dispose]() {
      try {
        process.kill(qemuPid, "SIGCONT");
      } catch {
        // Its pod was stopped meanwhile.
      }
    },
  };
}

test("a guest that hangs: others have their figures, an exec its deadline, and it can be stopped", { skip }, async () => {
  const { runtime } = node().clients;
  await using flat = await node().runPod({ runtimeHandler: "aurae-flat" });
  const beside = await flat.start();
  await using pod = await node().runPod({ runtimeHandler: "aurae-vm" });
  const container = await pod.start();
  using _frozen = await freeze(pod);

  const limits = { timeoutMs: PATIENCE_MS };
  const { stats } = await unary(runtime, runtime.listPodSandboxStats, { filter: undefined }, limits);
  assert.deepEqual(
    stats.map(({ attributes }) => attributes?.id),
    [flat.id],
  );
  const ofContainers = await unary(runtime, runtime.listContainerStats, { filter: undefined }, limits);
  assert.deepEqual(
    ofContainers.stats.map(({ attributes }) => attributes?.id),
    [beside.id],
  );
  const exec = unary(runtime, runtime.execSync, { containerId: container.id, cmd: ["/bin/true"], timeout: 1n }, limits);
  await assertRefused(node().kind, exec, { code: status.DEADLINE_EXCEEDED, message: /timed out after 1000 ms, and the pod's auraed/ });
  await unary(runtime, runtime.stopPodSandbox, { podSandboxId: pod.id }, limits);
  assert.equal((await pod.status()).state, PodSandboxState.SANDBOX_NOTREADY);
  assert.equal((await beside.exec(["/bin/echo", "alive"])).stdout, "alive\n");
});

test("a guest that hangs while a container is made: the next daemon serves at once, and the pod can be removed", { skip }, async () => {
  const { runtime } = node().clients;
  await using pod = await node().runPod({ runtimeHandler: "aurae-vm" });
  using _frozen = await freeze(pod);
  const making = pod.create().then(
    () => assert.fail("a container was made in a guest that hangs"),
    () => "the daemon was killed",
  );
  await new Promise((resolve) => setTimeout(resolve, 500));
  await node().kill9();
  assert.equal(await making, "the daemon was killed");

  const begunMs = performance.now();
  await node().startDaemon();
  assert.ok(performance.now() - begunMs < PATIENCE_MS, "the daemon waits for a guest");
  assert.equal((await pod.status()).state, PodSandboxState.SANDBOX_READY);
  await unary(runtime, runtime.stopPodSandbox, { podSandboxId: pod.id }, { timeoutMs: 2 * PATIENCE_MS });
});

test("a guest that died while a container was made and the daemon was down is noticed", { skip }, async () => {
  await using pod = await node().runPod({ runtimeHandler: "aurae-vm" });
  const { qemuPid } = await machineOf(node().prefix, pod.id);
  process.kill(qemuPid, "SIGSTOP");
  const making = pod.create().catch(() => undefined);
  await new Promise((resolve) => setTimeout(resolve, 500));
  await node().kill9();
  assert.equal(await making, undefined);
  process.kill(qemuPid, "SIGKILL");
  await node().startDaemon();
  const deadlineMs = Date.now() + PATIENCE_MS;
  while ((await pod.status()).state !== PodSandboxState.SANDBOX_NOTREADY) assert.ok(Date.now() < deadlineMs, "the pod stays READY");
});
