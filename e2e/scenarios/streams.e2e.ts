import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { type ServiceError, status } from "@grpc/grpc-js";
import { type ContainerEventResponse, ContainerState, LinuxContainerResources, PodSandboxState } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { unary } from "../harness/cri-client.ts";
import { OpenStream, readStream, told } from "../harness/cri-stream.ts";
import { goClientUnderTest, runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const node = useNode({ images: ["busybox", "other"] });
const wholeMessages = goClientUnderTest() ? "the Go client puts messages together" : false;
const oursOnly = runtimeUnderTest() === "containerd" ? "containerd does otherwise" : false;

beforeEach(async () => {
  if (!node().daemon.isRunning) await node().startDaemon();
});

function openEvents(): Promise<OpenStream<ContainerEventResponse>> {
  const { runtime } = node().clients;
  return OpenStream.open(runtime, runtime.getContainerEvents, {});
}

test("a streaming list says what the unary list says", { skip: oursOnly }, async () => {
  const { runtime, image } = node().clients;
  const everything = { filter: undefined };
  if (wholeMessages === false)
    assert.deepEqual(await readStream(runtime, runtime.streamContainers, everything), [], "nothing is no message");
  await using pod = await node().runPod({ labels: { app: "streams" } });
  await using other = await node().runPod();
  await pod.start();
  await pod.create();
  await other.start();

  const pods = await readStream(runtime, runtime.streamPodSandboxes, everything);
  assert.deepEqual(
    pods.flatMap((message) => message.podSandboxes),
    (await unary(runtime, runtime.listPodSandbox, everything)).items,
  );
  const containers = await readStream(runtime, runtime.streamContainers, everything);
  assert.deepEqual(
    containers.flatMap((message) => message.containers),
    (await unary(runtime, runtime.listContainers, everything)).containers,
  );
  const images = await readStream(image, image.streamImages, everything);
  assert.deepEqual(
    images.flatMap((message) => message.images),
    (await unary(image, image.listImages, everything)).images,
  );
  const ids = (stats: readonly { readonly attributes: { readonly id: string } | undefined }[]) => stats.map((one) => one.attributes?.id);
  const containerStats = await readStream(runtime, runtime.streamContainerStats, everything);
  assert.deepEqual(
    ids(containerStats.flatMap((message) => message.containerStats)),
    ids((await unary(runtime, runtime.listContainerStats, everything)).stats),
  );
  const podStats = await readStream(runtime, runtime.streamPodSandboxStats, everything);
  assert.deepEqual(
    ids(podStats.flatMap((message) => message.podSandboxStats)),
    ids((await unary(runtime, runtime.listPodSandboxStats, everything)).stats),
  );
  const filter = { id: "", state: undefined, labelSelector: { app: "streams" } };
  const filtered = await readStream(runtime, runtime.streamPodSandboxes, { filter });
  assert.deepEqual(
    filtered.flatMap((message) => message.podSandboxes.map(({ id }) => id)),
    [pod.id],
  );
});

test("a streaming list of many is whole", { skip: oursOnly || wholeMessages }, async () => {
  const { runtime } = node().clients;
  await using pod = await node().runPod();
  // Ten of these fill a message.
  const annotations = { blob: "x".repeat(100_000) };
  const made: string[] = [];
  for (let index = 0; index < 25; index++) made.push((await pod.create({ annotations })).id);
  const messages = await readStream(runtime, runtime.streamContainers, { filter: undefined });
  assert.equal(messages.length, 3);
  assert.deepEqual(messages.flatMap((message) => message.containers.map(({ id }) => id)).sort(), made.sort());
});

test("every client is told of each step once, with the state of the whole pod", { skip: oursOnly }, async () => {
  using first = await openEvents();
  using second = await openEvents();
  const names: Record<string, string> = {};
  {
    await using pod = await node().runPod();
    names[pod.id] = "pod";
    const ends = await pod.create({ command: ["/bin/sh", "-c", "echo last words; exit 7"] });
    names[ends.id] = "ends";
    await ends.start();
    await first.take(5);
    const stopped = first.messages[4];
    const [own] = stopped?.containersStatuses ?? [];
    assert.equal(own?.state, ContainerState.CONTAINER_EXITED);
    assert.equal(own.exitCode, 7);
    assert.equal(await ends.logText("stdout"), "last words\n");
    const stays = await pod.start();
    names[stays.id] = "stays";
    await ends.remove();
    await first.take(8);
  }
  const want = [
    ["pod created", "pod started"],
    ["ends created", "ends started", "ends stopped"],
    ["stays created", "stays started", "ends deleted"],
    ["stays stopped", "pod stopped", "stays deleted", "pod deleted"],
  ].flat();
  assert.deepEqual(told(await first.take(want.length), names), want);
  assert.deepEqual(told(await second.take(want.length), names), want);
  for (const event of first.messages) {
    assert.equal(names[event.podSandboxStatus?.id ?? ""], "pod");
    assert.ok(event.createdAt > 0n);
  }
  assert.deepEqual(
    first.messages.map((event) => event.containersStatuses.length),
    [0, 0, 1, 1, 1, 2, 2, 1, 1, 1, 0, 0],
  );
  assert.deepEqual(
    first.messages.map((event) => event.podSandboxStatus?.state === PodSandboxState.SANDBOX_READY),
    [true, true, true, true, true, true, true, true, false, false, false, false],
  );
});

test("a container that cannot be created or started", { skip: oursOnly }, async () => {
  using events = await openEvents();
  const names: Record<string, string> = {};
  {
    await using pod = await node().runPod();
    names[pod.id] = "pod";
    await assert.rejects(pod.create({ image: { image: "no-such-image" } }));
    await assert.rejects(pod.start({ command: ["/no/such/program"] }));
  }
  const seen = await waitFor("the end of the pod", () => {
    const all = told(events.messages, names);
    return all.at(-1) === "pod deleted" ? all : undefined;
  });
  const withoutIds = seen.map((line) => line.replace(/^[0-9a-f]{64}/, "container"));
  assert.equal(withoutIds.filter((line) => line === "container started").length, 0);
  const count = (line: string) => withoutIds.filter((one) => one === line).length;
  assert.equal(count("container created"), count("container deleted"), "what was told of is told to be gone");
});

test("a daemon's end ends the stream at once; nothing is replayed, and what ends later is told", { skip: oursOnly }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  using before = await openEvents();
  const startMs = performance.now();
  await node().restart();
  assert.ok(performance.now() - startMs < 8000, "the stream did not hold up the daemon");
  const error = (await before.ended) as ServiceError;
  assert.equal(error.code, status.UNAVAILABLE);
  using after = await openEvents();
  await container.stop(0);
  assert.deepEqual(told(await after.take(1), { [container.id]: "container" }), ["container stopped"]);
});

test("what ended while no daemon was there is told, or in the list of whoever calls before that: never in neither", {
  skip: oursOnly,
}, async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: ["/bin/sh", "-c", "sleep 1; exit 5"] });
  await node().kill9();
  await sleep(2000);
  await node().startDaemon();
  using events = await openEvents();
  const { state } = await container.status();
  if (state !== ContainerState.CONTAINER_EXITED)
    assert.deepEqual(told(await events.take(1), { [container.id]: "container" }), ["container stopped"]);
  const ended = await container.waitExited();
  assert.equal(ended.exitCode, 5);
  await container.remove();
  const later = await waitFor("the removal", () => told(events.messages, { [container.id]: "container" }).includes("container deleted"));
  assert.ok(later);
  assert.ok(told(events.messages, { [container.id]: "container" }).length <= 2, "and nothing twice");
});

test("an auraed that dies takes its pod down in the eyes of clients", { skip: oursOnly }, async () => {
  const { runtime } = node().clients;
  await using pod = await node().runPod();
  const container = await pod.start();
  const { info } = await unary(runtime, runtime.podSandboxStatus, { podSandboxId: pod.id, verbose: true });
  using events = await openEvents();
  process.kill(JSON.parse(info["info"] ?? "{}").supervisorPid, "SIGKILL");
  const names = { [pod.id]: "pod", [container.id]: "container" };
  assert.deepEqual(told(await events.take(2), names), ["container stopped", "pod stopped"]);
});

test("a pod's new size is kept, over a restart too", { skip: oursOnly }, async () => {
  const { runtime } = node().clients;
  await using pod = await node().runPod();
  const resources = LinuxContainerResources.fromPartial({ memoryLimitInBytes: 256n << 20n, cpuShares: 512n });
  const overhead = LinuxContainerResources.fromPartial({ memoryLimitInBytes: 16n << 20n });
  const size = async () => {
    const { info } = await unary(runtime, runtime.podSandboxStatus, { podSandboxId: pod.id, verbose: true });
    const { resources: kept, overhead: keptOverhead } = JSON.parse(info["info"] ?? "{}");
    return { kept, keptOverhead };
  };
  await unary(runtime, runtime.updatePodSandboxResources, { podSandboxId: pod.id, overhead, resources: undefined });
  await unary(runtime, runtime.updatePodSandboxResources, { podSandboxId: pod.id, overhead: undefined, resources });
  const want = { kept: { cpuShares: 512, memoryLimitBytes: 256 << 20 }, keptOverhead: { memoryLimitBytes: 16 << 20 } };
  assert.deepEqual(await size(), want);
  await node().kill9();
  await node().startDaemon();
  assert.deepEqual(await size(), want);
  const again = await unary(runtime, runtime.runPodSandbox, { config: pod.config, runtimeHandler: "" });
  assert.equal(again.podSandboxId, pod.id, "the identical request still joins");

  const update = (podSandboxId: string, linux: LinuxContainerResources) =>
    unary(runtime, runtime.updatePodSandboxResources, { podSandboxId, overhead: undefined, resources: linux });
  const negative = LinuxContainerResources.fromPartial({ cpuShares: -1n });
  await assertRefused(node().kind, update(pod.id, negative), { code: status.INVALID_ARGUMENT, message: /resources\.cpu_shares/ });
  await assertRefused(node().kind, update("", resources), { code: status.INVALID_ARGUMENT, message: /pod_sandbox_id/ });
  await assertRefused(node().kind, update("f".repeat(64), resources), { code: status.NOT_FOUND, message: /not found/ });
  await pod.stop();
  await assertRefused(node().kind, update(pod.id, resources), { code: status.FAILED_PRECONDITION, message: /READY/ });
});
