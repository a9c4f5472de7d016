/** What we serve beyond the usual calls, through the kubelet's own client library: it must accept every answer. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { type ServiceError, status } from "@grpc/grpc-js";

import {
  type ContainerEventResponse,
  ContainerState,
  LinuxContainerResources,
  NamespaceMode,
  PodSandboxState,
} from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { unary } from "../harness/cri-client.ts";
import { OpenStream, readStream, told } from "../harness/cri-stream.ts";
import { imageSpec } from "../harness/node.ts";
import { podsUnderTest, runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const skip = runtimeUnderTest() === "containerd" ? "containerd does otherwise" : false;
const microvm = podsUnderTest() === "microvm";
const MIB = 1n << 20n;

/** CDI's specifications, and beside them what the devices are made of. */
const dir = mkdtempSync(join(tmpdir(), "ae2e-go-"));
mkdirSync(join(dir, "cdi"));
after(() => rm(dir, { recursive: true, force: true }));

/** Of events, for a client that does not read. */
const MAX_WAITING = 16;
const CONFIG = { cdi: { spec_dirs: [join(dir, "cdi")] }, events: { max_waiting: MAX_WAITING } };
const node = useNode({ goClient: true, images: ["busybox", "layers"], config: CONFIG });

function openEvents(): Promise<OpenStream<ContainerEventResponse>> {
  const { runtime } = node().clients;
  return OpenStream.open(runtime, runtime.getContainerEvents, {});
}

async function toldUntilStopped(stream: OpenStream<ContainerEventResponse>, names: Readonly<Record<string, string>>): Promise<string[]> {
  return await waitFor("the pod's end", () => {
    const all = told(stream.messages, names);
    return all.at(-1) === "pod stopped" && all;
  });
}

test("events: each step once, and what ends while the daemon is away is told or listed", { skip }, async () => {
  await using pod = await node().runPod();
  using first = await openEvents();
  const container = await pod.start({ command: ["/bin/sh", "-c", "sleep 1; exit 5"] });
  const names = { [pod.id]: "pod", [container.id]: "container" };
  assert.deepEqual(told(await first.take(2), names), ["container created", "container started"]);
  const [, started] = first.messages;
  assert.equal(started?.podSandboxStatus?.id, pod.id);
  const states = started.containersStatuses.map(({ id, state }) => [id, state]);
  assert.deepEqual(states, [[container.id, ContainerState.CONTAINER_RUNNING]]);

  await node().kill9();
  assert.equal(((await first.ended) as ServiceError).code, status.UNAVAILABLE);
  await sleep(1500);
  await node().startDaemon();
  using second = await openEvents();
  const listed = (await container.status()).state === ContainerState.CONTAINER_EXITED;
  assert.equal((await container.waitExited()).exitCode, 5);
  await container.remove();
  await pod.stop();
  const all = await toldUntilStopped(second, names);
  assert.ok(listed || all[0] === "container stopped");
  assert.deepEqual(
    all.filter((line, at) => at > 0 || line !== "container stopped"),
    ["container deleted", "pod stopped"],
  );
});

test("events that nobody reads are dropped, and the client is told how many", { skip }, async () => {
  // Few of such events fill what is on the way to the client.
  await using pod = await node().runPod({ annotations: { blob: "x".repeat(200_000) } });
  using reader = await openEvents();
  using sleeper = await openEvents();
  sleeper.pause();
  for (let cycle = 0; cycle < 20; cycle++) await (await pod.create()).remove();
  await pod.stop();
  const names = { [pod.id]: "pod" };
  const all = await toldUntilStopped(reader, names);
  sleeper.resume();
  const error = (await sleeper.ended) as ServiceError;
  assert.equal(error.code, status.RESOURCE_EXHAUSTED);
  const dropped = Number(/^(\d+) events were dropped/.exec(error.details)?.[1]);
  assert.ok(dropped > MAX_WAITING);
  assert.equal(sleeper.messages.length + dropped, all.length);
  assert.deepEqual(told(sleeper.messages, names), all.slice(0, sleeper.messages.length), "without a gap until then");
  using again = await openEvents();
  await pod.remove();
  assert.deepEqual(told(await again.take(1), names), ["pod deleted"]);
});

test("the six streaming lists say what the unary ones say", { skip }, async () => {
  const { runtime, image } = node().clients;
  await using pod = await node().runPod({ labels: { app: "lists" } });
  await using other = await node().runPod();
  const container = await pod.start({ labels: { app: "lists" } });
  await other.create();
  const all = { filter: undefined };

  const pods = (await readStream(runtime, runtime.streamPodSandboxes, all)).flatMap((message) => message.podSandboxes);
  assert.deepEqual(pods, (await unary(runtime, runtime.listPodSandbox, all)).items);
  assert.deepEqual(
    new Map(pods.map(({ id, state }) => [id, state])),
    new Map([pod, other].map(({ id }) => [id, PodSandboxState.SANDBOX_READY])),
  );
  const containers = (await readStream(runtime, runtime.streamContainers, all)).flatMap((message) => message.containers);
  assert.deepEqual(containers, (await unary(runtime, runtime.listContainers, all)).containers);
  assert.deepEqual(containers.map(({ podSandboxId }) => podSandboxId).toSorted(), [pod.id, other.id].toSorted());
  const images = (await readStream(image, image.streamImages, all)).flatMap((message) => message.images);
  assert.deepEqual(images, (await unary(image, image.listImages, all)).images);
  assert.deepEqual(
    images.flatMap(({ repoTags }) => repoTags).toSorted(),
    ["busybox", "layers"].map((name) => node().registry.reference(name)),
  );

  const filter = { id: "", podSandboxId: "", labelSelector: { app: "lists" } };
  const [stats, ...more] = (await readStream(runtime, runtime.streamContainerStats, { filter })).flatMap(
    (message) => message.containerStats,
  );
  assert.deepEqual([stats?.attributes?.id, more], [container.id, []]);
  assert.ok((stats?.memory?.usageBytes?.value ?? 0n) > 0n && (stats?.cpu?.usageCoreNanoSeconds?.value ?? 0n) > 0n);
  const podStats = (await readStream(runtime, runtime.streamPodSandboxStats, { filter })).flatMap((message) => message.podSandboxStats);
  assert.deepEqual(
    podStats.map(({ attributes, linux }) => [attributes?.id, linux?.containers.map((one) => one.attributes?.id)]),
    [[pod.id, [container.id]]],
  );
  const metrics = (await readStream(runtime, runtime.streamPodSandboxMetrics, {})).flatMap((message) => message.podSandboxMetrics);
  assert.deepEqual(metrics.map(({ podSandboxId }) => podSandboxId).toSorted(), [pod.id, other.id].toSorted());
});

/** As cAdvisor names them, without `container_`. */
const METRICS = [
  "blkio_device_usage_total file_descriptors last_seen oom_events_total processes sockets start_time_seconds threads threads_max ulimits_soft",
  "cpu_cfs_periods_total cpu_cfs_throttled_periods_total cpu_cfs_throttled_seconds_total",
  "cpu_system_seconds_total cpu_usage_seconds_total cpu_user_seconds_total",
  "fs_inodes_free fs_inodes_total fs_limit_bytes fs_reads_bytes_total fs_reads_total fs_usage_bytes fs_writes_bytes_total fs_writes_total",
  "hugetlb_max_usage_bytes hugetlb_usage_bytes memory_cache memory_failcnt memory_failures_total memory_kernel_usage memory_mapped_file",
  "memory_max_usage_bytes memory_rss memory_swap memory_usage_bytes memory_working_set_bytes",
  "network_receive_bytes_total network_receive_errors_total network_receive_packets_total network_receive_packets_dropped_total",
  "network_transmit_bytes_total network_transmit_errors_total network_transmit_packets_total network_transmit_packets_dropped_total",
  "pressure_cpu_stalled_seconds_total pressure_io_stalled_seconds_total pressure_memory_stalled_seconds_total",
  "pressure_cpu_waiting_seconds_total pressure_io_waiting_seconds_total pressure_memory_waiting_seconds_total",
  "spec_cpu_period spec_cpu_quota spec_cpu_shares spec_memory_limit_bytes spec_memory_reservation_limit_bytes spec_memory_swap_limit_bytes",
].flatMap((line) => line.split(" ").map((name) => `container_${name}`));

test("56 metrics are described, and each figure is one of them with all its labels", { skip }, async () => {
  const { runtime } = node().clients;
  const { descriptors } = await unary(runtime, runtime.listMetricDescriptors, {});
  assert.equal(METRICS.length, 56);
  assert.deepEqual(descriptors.map(({ name }) => name).toSorted(), METRICS.toSorted());
  const keys = new Map(descriptors.map(({ name, labelKeys }) => [name, labelKeys]));

  await using pod = await node().runPod();
  const container = await pod.start({ linux: { resources: { memoryLimitInBytes: 64n * MIB } } });
  const { podMetrics } = await unary(runtime, runtime.listPodSandboxMetrics, {});
  const own = podMetrics.find(({ podSandboxId }) => podSandboxId === pod.id) ?? assert.fail("the pod has no metrics");
  const [of] = own.containerMetrics;
  assert.equal(of?.containerId, container.id);
  for (const { name, labelValues } of [...own.metrics, ...of.metrics]) assert.equal(labelValues.length, keys.get(name)?.length, name);
  const figure = (name: string) => of.metrics.find((metric) => metric.name === `container_${name}`);
  assert.equal(figure("spec_memory_limit_bytes")?.value?.value, 64n * MIB);
  for (const name of ["memory_usage_bytes", "processes", "threads", "start_time_seconds", "fs_inodes_total", "ulimits_soft"])
    assert.ok((figure(name)?.value?.value ?? 0n) > 0n, name);
  const labels = keys.get("container_memory_rss")?.map((key, at) => [key, figure("memory_rss")?.labelValues[at]]) ?? [];
  const { name: podName, namespace } = pod.config.metadata ?? {};
  assert.partialDeepStrictEqual(Object.fromEntries(labels), { name: container.id, pod: podName, namespace });
  assert.ok(own.metrics.some(({ name, labelValues }) => name === "container_network_receive_bytes_total" && labelValues.includes("eth0")));
});

test("a CDI device: variables and files in both modes, device nodes flat", { skip }, async () => {
  await writeFile(join(dir, "driver"), "of the host\n");
  const devices = [
    {
      name: "soft",
      containerEdits: {
        env: ["SOFT=1"],
        mounts: [{ hostPath: join(dir, "driver"), containerPath: "/opt/driver", options: ["ro", "rbind"] }],
      },
    },
    { name: "hard", containerEdits: { deviceNodes: [{ path: "/dev/hard", hostPath: "/dev/full" }] } },
  ];
  await writeFile(join(dir, "cdi/things.json"), JSON.stringify({ cdiVersion: "0.8.0", kind: "vendor.example/thing", devices }));
  await using pod = await node().runPod();
  const asking = (name: string) => ({ metadata: { name }, CDIDevices: [{ name: `vendor.example/thing=${name}` }] });
  const soft = await pod.start(asking("soft"));
  assert.equal(await soft.shell("echo $SOFT; cat /opt/driver"), "1\nof the host");
  await assertRefused(node().kind, pod.create(asking("absent")), {
    code: status.FAILED_PRECONDITION,
    message: /thing=absent' is not on this node/,
  });
  if (microvm) {
    const refusal = { code: status.FAILED_PRECONDITION, message: /thing=hard" needs "\/dev\/full", a device of the host/ };
    await assertRefused(node().kind, pod.create(asking("hard")), refusal);
  } else {
    assert.equal(await (await pod.start(asking("hard"))).shell("stat -c %t:%T /dev/hard"), "1:7");
  }
});

test("NamespaceMode TARGET: a container among the processes of another", async () => {
  await using pod = await node().runPod();
  const target = await pod.start({ command: ["/bin/sleep", "65432"] });
  const joining = (targetId: string) => ({ linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.TARGET, targetId } } } });
  const debug = await pod.start(joining(target.id));
  const alone = await pod.start();
  assert.match(await debug.shell("ps -o args"), /sleep 65432/);
  assert.doesNotMatch(await alone.shell("ps -o args"), /sleep 65432/);
  assert.notEqual(await debug.shell("readlink /proc/self/ns/mnt"), await target.shell("readlink /proc/self/ns/mnt"));
  await debug.stop(0);
  assert.equal((await target.status()).state, ContainerState.CONTAINER_RUNNING);
  await assertRefused(node().kind, pod.create(joining("f".repeat(64))), { code: status.INVALID_ARGUMENT, message: /target_id/ });
});

test("image_ref: a container's status names the image of its volume, and its own", { skip }, async () => {
  await using pod = await node().runPod();
  const image = { image: node().registry.reference("layers") };
  const container = await pod.start({ mounts: [{ containerPath: "/volume", readonly: true, image, imageSubPath: "data" }] });
  assert.equal(await container.shell("cat /volume/kept"), "kept");
  const { mounts, imageId, imageRef } = await container.status();
  const idOf = (name: string) => node().registry.image(name).images.at(-1)?.config.digest;
  assert.deepEqual(
    mounts.map((mount) => [mount.containerPath, mount.image?.imageRef, mount.imageSubPath]),
    [["/volume", idOf("layers"), "data"]],
  );
  assert.equal(imageId, idOf("busybox"));
  assert.equal(imageRef, `${node().registry.host}/busybox@${node().registry.image("busybox").manifest.digest}`);
});

test("UpdatePodSandboxResources: the size is kept, and a microVM's pod bound to it", { skip }, async () => {
  const { runtime } = node().clients;
  await using pod = await node().runPod({ linux: { resources: { memoryLimitInBytes: 160n * MIB } } });
  const update = (memoryLimitInBytes: bigint) => {
    const resources = LinuxContainerResources.fromPartial({ memoryLimitInBytes });
    return unary(runtime, runtime.updatePodSandboxResources, { podSandboxId: pod.id, overhead: undefined, resources });
  };
  const kept = async () => {
    const { info } = await unary(runtime, runtime.podSandboxStatus, { podSandboxId: pod.id, verbose: true });
    return BigInt(JSON.parse(info["info"] ?? "").resources.memoryLimitBytes);
  };
  await update(64n * MIB);
  assert.equal(await kept(), 64n * MIB);
  if (microvm) {
    const memory = (await unary(runtime, runtime.podSandboxStats, { podSandboxId: pod.id })).stats?.linux?.memory;
    assert.equal((memory?.availableBytes?.value ?? 0n) + (memory?.workingSetBytes?.value ?? 0n), 64n * MIB);
    await assertRefused(node().kind, update(4096n * MIB), { code: status.FAILED_PRECONDITION, message: /cannot grow/ });
    assert.equal(await kept(), 64n * MIB);
  } else {
    await update(4096n * MIB);
    assert.equal(await kept(), 4096n * MIB);
  }
});

test("verbose info has the keys that scripts read, for node, pod, container and image", { skip }, async () => {
  const { runtime, image } = node().clients;
  await using pod = await node().runPod();
  const container = await pod.start();
  const ofNode = (await unary(runtime, runtime.status, { verbose: true })).info;
  assert.equal(ofNode["lastCNILoadStatus"], "OK");
  assert.equal(JSON.parse(ofNode["config"] ?? "").stateDir, node().prefix.stateDir);

  const ofPod = JSON.parse((await unary(runtime, runtime.podSandboxStatus, { podSandboxId: pod.id, verbose: true })).info["info"] ?? "");
  assert.match(await readFile(`/proc/${ofPod.pid}/cmdline`, "utf8"), microvm ? /qemu/ : /auraed\0pod/);
  assert.equal(ofPod.config.metadata.uid, pod.config.metadata?.uid);
  assert.equal(ofPod.cniResult.ips.length, 1);
  assert.ok(ofPod.runtimeSpec.linux.namespaces.some(({ type }: { type: string }) => type === "network"));

  const ofContainer = await unary(runtime, runtime.containerStatus, { containerId: container.id, verbose: true });
  const own = JSON.parse(ofContainer.info["info"] ?? "");
  assert.deepEqual([own.sandboxID, own.privileged], [pod.id, false]);
  assert.match(await readFile(`/proc/${own.pid}/cmdline`, "utf8"), microvm ? /qemu/ : /sleep/);
  assert.equal(own.guestPid > 1, microvm);
  assert.deepEqual(own.runtimeSpec.process.args, ["/bin/sleep", "infinity"]);

  const { info } = await unary(image, image.imageStatus, { image: imageSpec(ofContainer.status?.imageId ?? ""), verbose: true });
  const ofImage = JSON.parse(info["info"] ?? "");
  assert.deepEqual(ofImage.imageSpec.config.Cmd, ["sh"]);
  assert.match(ofImage.chainID, /^sha256:[0-9a-f]{64}$/);
});
