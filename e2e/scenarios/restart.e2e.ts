import assert from "node:assert/strict";
import { existsSync, globSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, test } from "node:test";
import { status } from "@grpc/grpc-js";

import { ContainerState, PodSandboxState } from "../../api/gen/cri/v1/api.ts";
import { mustRun } from "../harness/command.ts";
import { unary } from "../harness/cri-client.ts";
import { leases } from "../harness/leaks.ts";
import { Pod, sandboxConfig } from "../harness/pod.ts";
import { runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const node = useNode({ images: ["busybox", "other"] });
const oursOnly = runtimeUnderTest() === "containerd" ? "containerd does otherwise" : false;

beforeEach(async () => {
  if (!node().daemon.isRunning) await node().startDaemon();
});

/** Numbered lines, fast, with a last one on SIGTERM. */
const counter = ["/bin/sh", "-c", "trap 'echo end; exit 21' TERM; i=0; while :; do i=$((i+1)); echo $i; usleep 2000; done"];

test("kill -9 while containers run: they go on, and so does everything about them", async () => {
  await using pod = await node().runPod();
  const before = await pod.status();
  const running = await pod.start({ command: counter });
  const waiting = await pod.create({ command: ["/bin/sh", "-c", "echo started later; exit 4"] });
  const ended = await pod.start({ command: ["/bin/sh", "-c", "exit 5"] });
  const endsMeanwhile = await pod.start({ command: ["/bin/sh", "-c", "sleep 0.5; echo meanwhile; exit 6"] });
  await ended.waitExited();
  const pidBefore = await running.shell("cut -d' ' -f22 /proc/1/stat");

  await node().kill9();
  // The reference writes logs in its daemon, so they wait.
  if (node().kind === "aurae-cri") {
    const lines = (await running.logLines()).length;
    await waitFor("the log to go on without the daemon", async () => (await running.logLines()).length > lines + 50);
    await waitFor("a container to end without the daemon", async () => (await endsMeanwhile.logText("stdout")) === "meanwhile\n");
  }
  await node().startDaemon();

  assert.deepEqual(await pod.status(), before);
  assert.equal((await running.status()).state, ContainerState.CONTAINER_RUNNING);
  assert.equal((await waiting.status()).state, ContainerState.CONTAINER_CREATED);
  assert.equal((await ended.status()).exitCode, 5);
  assert.equal((await endsMeanwhile.waitExited()).exitCode, 6);
  assert.equal(await running.shell("cut -d' ' -f22 /proc/1/stat"), pidBefore, "the same process");
  await waiting.start();
  assert.equal((await waiting.waitExited()).exitCode, 4);
  assert.equal(await waiting.logText("stdout"), "started later\n");
  await running.reopenLog();
  await running.stop(10);
  assert.equal((await running.status()).exitCode, 21);
  const text = await running.logText("stdout");
  const numbers = text.trimEnd().split("\n");
  assert.equal(numbers.pop(), "end");
  numbers.forEach((line, index) => assert.equal(Number(line), index + 1, "no line lost or repeated"));
});

test("SIGTERM and a new start change nothing either", async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: counter });
  await node().restart();
  assert.equal((await container.exec(["/bin/echo", "still"])).stdout, "still\n");
  await using second = await node().runPod();
  assert.notEqual((await second.status()).network?.ip, (await pod.status()).network?.ip);
  await container.stop(10);
  assert.equal((await container.status()).exitCode, 21);
});

test("a pod can be stopped and removed by a daemon that did not start it", async () => {
  const pod = await node().runPod();
  await pod.start();
  await node().kill9();
  await node().startDaemon();
  await pod.stop();
  await pod.remove();
  const { runtime } = node().clients;
  assert.deepEqual((await unary(runtime, runtime.listPodSandbox, { filter: undefined })).items, []);
  assert.deepEqual(await leases(node().prefix), []);
});

test("a lost database does not kill a workload", { skip: oursOnly }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: counter });
  const ended = await pod.start({ command: ["/bin/sh", "-c", "exit 8"] });
  await ended.waitExited();
  await node().kill9();
  const files = globSync("*.db*", { cwd: node().prefix.rootDir });
  assert.notEqual(files.length, 0);
  for (const name of files) rmSync(join(node().prefix.rootDir, name));
  await node().startDaemon();
  assert.equal((await pod.status()).state, PodSandboxState.SANDBOX_READY);
  assert.equal((await container.exec(["/bin/echo", "alive"])).stdout, "alive\n");
  assert.equal((await ended.status()).exitCode, 8);
  await container.stop(10);
  assert.equal((await container.status()).exitCode, 21);
  for (const name of ["busybox", "other"]) await node().pull(name);
});

test("the death of a pod's supervisor is told, and its containers do not outlive it", { skip: oursOnly }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: ["/bin/sleep", "infinity"] });
  const { info } = await node().crictl.json<{ info: { supervisorPid: number } }>("inspectp", "-o", "json", pod.id);
  assert.match(readFileSync(`/proc/${info.supervisorPid}/cmdline`, "utf8"), /auraed/);
  const children = (await mustRun("ps", ["-o", "pid=", "--ppid", String(info.supervisorPid)]))
    .split("\n")
    .filter((line) => line.trim() !== "");
  process.kill(info.supervisorPid, "SIGKILL");
  const ended = await container.waitExited();
  assert.deepEqual([ended.exitCode, ended.reason], [255, "AuraedCrashed"]);
  assert.equal((await pod.status()).state, PodSandboxState.SANDBOX_NOTREADY);
  assert.notEqual(children.length, 0, "a container, or the machine that it is in");
  await waitFor("its processes to end", () => children.every((pid) => !existsSync(`/proc/${pid.trim()}`)));
});

test("images survive", async () => {
  const { image } = node().clients;
  const list = async () =>
    (await unary(image, image.listImages, { filter: undefined })).images.toSorted((left, right) => left.id.localeCompare(right.id));
  const before = await list();
  await node().kill9();
  await node().startDaemon();
  assert.deepEqual(await list(), before);
});

test("a call whose client gave up is finished, and its retry gets the result", async () => {
  const { runtime } = node().clients;
  const config = sandboxConfig(node().prefix);
  const impatient = unary(runtime, runtime.runPodSandbox, { config, runtimeHandler: "" }, { timeoutMs: 30 });
  await assert.rejects(impatient, { code: status.DEADLINE_EXCEEDED });
  // The reference rolls back what the client no longer waits for and refuses the name until then.
  const retry = () => unary(runtime, runtime.runPodSandbox, { config, runtimeHandler: "" });
  const { podSandboxId } = node().kind === "containerd" ? await waitFor("the name to be free", retry) : await retry();
  await using pod = new Pod({ node: node(), id: podSandboxId, config });
  assert.equal((await pod.status()).state, PodSandboxState.SANDBOX_READY);
  assert.equal((await unary(runtime, runtime.listPodSandbox, { filter: undefined })).items.length, 1);
});
