import assert from "node:assert/strict";
import { test } from "node:test";

import { status } from "@grpc/grpc-js";

import { ContainerState, NamespaceMode, Signal } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import type { Container } from "../harness/container.ts";
import { unary } from "../harness/cri-client.ts";
import { slowness } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const node = useNode({ images: ["busybox", "custom"] });
const podPid = { linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.POD } } } };

async function waitForLog(container: Container, text: string): Promise<void> {
  await waitFor(`'${text}' in the log`, async () => (await container.logText("stdout")).includes(text));
}

test("exit codes and reasons", async () => {
  await using pod = await node().runPod();
  for (const [code, reason] of [
    [0, "Completed"],
    [1, "Error"],
    [42, "Error"],
    [255, "Error"],
  ] as const) {
    const container = await pod.start({ command: ["/bin/sh", "-c", `exit ${code}`] });
    const ended = await container.waitExited();
    assert.equal(ended.exitCode, code);
    assert.equal(ended.reason, reason);
    assert.ok(ended.createdAt <= ended.startedAt, "created before started");
    // The reference notes the start when its shim has answered, which a short container does not live to see.
    if (node().kind === "aurae-cri") assert.ok(ended.startedAt <= ended.finishedAt, "started before finished");
    assert.ok(Math.abs(Number(ended.finishedAt / 1_000_000n) - Date.now()) < 60_000, "nanoseconds of now");
  }
});

test("a signal n ends a container with 128 + n", async () => {
  await using pod = await node().runPod(podPid);
  for (const [signal, code] of [
    ["TERM", 143],
    ["KILL", 137],
    ["SEGV", 139],
  ] as const) {
    const container = await pod.start({ command: ["/bin/sh", "-c", `kill -${signal} $$; sleep 10`] });
    const ended = await container.waitExited();
    assert.equal(ended.exitCode, code, signal);
    assert.equal(ended.reason, "Error");
  }
});

test("OOM is exit code 137 with reason OOMKilled", async () => {
  await using pod = await node().runPod();
  const resources = { linux: { resources: { memoryLimitInBytes: 32n * 1024n * 1024n } } };
  const alone = await pod.start({ command: ["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"], ...resources });
  const child = await pod.start({ command: ["/bin/sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1; exit $?"], ...resources });
  for (const container of [alone, child]) {
    const ended = await container.waitExited();
    assert.equal(ended.exitCode, 137);
    assert.equal(ended.reason, "OOMKilled");
  }
});

test("a command that does not exist is named, and leaves nothing that runs", async () => {
  await using pod = await node().runPod();
  const { runtime } = node().clients;
  // Some runtimes look for the program at create, some at start; the kubelet shows the message either way.
  const attempt = pod.create({ command: ["/no/such/command"] }).then((container) => container.start());
  await assert.rejects(attempt, /\/no\/such\/command/);
  const filter = { id: "", podSandboxId: pod.id, labelSelector: {}, state: undefined };
  for (const { id } of (await unary(runtime, runtime.listContainers, { filter })).containers) {
    const { status: ended } = await unary(runtime, runtime.containerStatus, { containerId: id, verbose: false });
    assert.deepEqual([ended?.state, ended?.exitCode, ended?.reason], [ContainerState.CONTAINER_EXITED, 128, "StartError"]);
  }
});

test("a container starts once", async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  await assertRefused(node().kind, container.start(), { code: status.FAILED_PRECONDITION, message: new RegExp(container.id) });
  await container.stop(0);
  await assertRefused(node().kind, container.start(), { code: status.FAILED_PRECONDITION, message: new RegExp(container.id) });
});

test("StopContainer sends SIGTERM and waits for its effect", async () => {
  await using pod = await node().runPod();
  const container = await pod.start({
    command: ["/bin/sh", "-c", "trap 'sleep 0.3; echo bye; exit 9' TERM; echo ready; while :; do sleep 0.05; done"],
  });
  await waitForLog(container, "ready");
  const begunMs = performance.now();
  await container.stop(20);
  assert.ok(performance.now() - begunMs < 10_000 * slowness(), "did not wait for the grace to pass");
  const ended = await container.status();
  assert.equal(ended.state, ContainerState.CONTAINER_EXITED);
  assert.equal(ended.exitCode, 9);
  assert.equal(await container.logText("stdout"), "ready\nbye\n");
});

test("StopContainer kills after the grace, at once with grace 0", async () => {
  await using pod = await node().runPod();
  const stubborn = { command: ["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"] };
  const [graceful, immediate] = [await pod.start(stubborn), await pod.start(stubborn)];
  await Promise.all([waitForLog(graceful, "ready"), waitForLog(immediate, "ready")]);

  let begunMs = performance.now();
  await graceful.stop(1);
  const waitedMs = performance.now() - begunMs;
  assert.ok(waitedMs >= 950 && waitedMs < 5000 * slowness(), `waited ${waitedMs} ms for a grace of 1 s`);
  assert.equal((await graceful.status()).exitCode, 137);

  begunMs = performance.now();
  await immediate.stop(0);
  assert.ok(performance.now() - begunMs < 2000 * slowness());
  assert.equal((await immediate.status()).exitCode, 137);
});

test("the stop signal is CRI's, else the image's", async () => {
  await using pod = await node().runPod();
  const image = { image: node().registry.reference("custom") };
  const fromImage = await pod.start({ image, command: [] });
  await waitForLog(fromImage, "cwd:");
  assert.equal((await fromImage.status()).stopSignal, Signal.SIGNAL_SIGUSR1);
  await fromImage.stop(10);
  assert.equal((await fromImage.status()).exitCode, 7);
  assert.match(await fromImage.logText("stdout"), /got USR1\n$/);

  const command = ["/bin/sh", "-c", "trap 'exit 11' HUP; trap 'exit 12' USR1; echo ready; while :; do sleep 0.05; done"];
  const fromCri = await pod.start({ image, command, stopSignal: Signal.SIGNAL_SIGHUP });
  await waitForLog(fromCri, "ready");
  assert.equal((await fromCri.status()).stopSignal, Signal.SIGNAL_SIGHUP);
  await fromCri.stop(10);
  assert.equal((await fromCri.status()).exitCode, 11);
});

test("the log is complete when EXITED is first seen", async () => {
  await using pod = await node().runPod();
  for (let round = 0; round < 5; round++) {
    const container = await pod.start({ command: ["/bin/sh", "-c", "seq 1 2000; echo last"] });
    await container.waitExited();
    const text = await container.logText("stdout");
    assert.equal(text.split("\n").length, 2002);
    assert.ok(text.endsWith("2000\nlast\n"));
  }
});

test("removing a running container kills it; stopping and removing twice succeeds", async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  await container.remove();
  await container.remove();
  await assert.rejects(container.status(), { code: status.NOT_FOUND });
  const other = await pod.start();
  await other.stop(0);
  await other.stop(0);
  assert.equal((await other.status()).state, ContainerState.CONTAINER_EXITED);
});

test("StopPodSandbox kills the containers and keeps them listed", async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  await pod.stop();
  const ended = await container.status();
  assert.equal(ended.state, ContainerState.CONTAINER_EXITED);
  assert.notEqual(ended.exitCode, 0);
  await pod.stop();
  await assertRefused(node().kind, pod.create(), { code: status.FAILED_PRECONDITION, message: new RegExp(pod.id) });
});
