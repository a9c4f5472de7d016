import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { status } from "@grpc/grpc-js";

import { CgroupDriver, LinuxContainerResources } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { cgroupFile } from "../harness/cgroup.ts";
import type { Container } from "../harness/container.ts";
import { unary } from "../harness/cri-client.ts";
import { cgroupDriver, podsUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const node = useNode();
const mebibyte = 1024n * 1024n;

interface Limits {
  readonly memoryBytes: string;
  readonly cpuQuota: string;
  readonly cpuset: string;
}

/** What the kernel that runs a container holds for it, whichever cgroup version that has. */
async function kernelLimits(container: Container): Promise<Limits> {
  if (podsUnderTest() === "microvm") return await guestLimits(container);
  const pid = await hostPid(container);
  const quota = await cgroupFile(pid, "cpu", { v1: "cpu.cfs_quota_us", v2: "cpu.max" });
  return {
    memoryBytes: await cgroupFile(pid, "memory", { v1: "memory.limit_in_bytes", v2: "memory.max" }),
    cpuQuota: quota.split(" ")[0] ?? "",
    cpuset: await cgroupFile(pid, "cpuset", { v1: "cpuset.cpus", v2: "cpuset.cpus" }),
  };
}

/** A guest has version 2, and a container sees its own cgroup there. */
async function guestLimits(container: Container): Promise<Limits> {
  const [memoryBytes = "", cpuMax = "", cpuset = ""] = (
    await container.shell("cd /sys/fs/cgroup && cat memory.max cpu.max cpuset.cpus")
  ).split("\n");
  return { memoryBytes, cpuQuota: cpuMax.split(" ")[0] ?? "", cpuset };
}

/** Undefined on a node without the controller, as hybrids are: what is none is limited to none. */
async function hugepageLimit(container: Container): Promise<string | undefined> {
  if (podsUnderTest() === "microvm") return await container.shell("cat /sys/fs/cgroup/hugetlb.2MB.max");
  if (!existsSync("/sys/fs/cgroup/hugetlb") && !existsSync("/sys/fs/cgroup/cgroup.controllers")) return undefined;
  return await cgroupFile(await hostPid(container), "hugetlb", { v1: "hugetlb.2MB.limit_in_bytes", v2: "hugetlb.2MB.max" });
}

async function hostPid(container: Container): Promise<number> {
  const { info } = await node().crictl.json<{ info: { pid: number } }>("inspect", "-o", "json", container.id);
  return info.pid;
}

test("limits reach the kernel and come back in the status", async () => {
  await using pod = await node().runPod();
  const resources = { memoryLimitInBytes: 64n * mebibyte, cpuQuota: 50_000n, cpuPeriod: 100_000n, cpuShares: 512n, cpusetCpus: "0" };
  const container = await pod.start({ linux: { resources } });
  assert.deepEqual(await kernelLimits(container), { memoryBytes: String(64n * mebibyte), cpuQuota: "50000", cpuset: "0" });
  const reported = (await container.status()).resources?.linux;
  assert.equal(reported?.memoryLimitInBytes, 64n * mebibyte);
  assert.equal(reported?.cpuQuota, 50_000n);
  assert.equal(reported?.cpuShares, 512n);
  assert.equal(reported?.cpusetCpus, "0");
});

test("huge pages as a kubelet limits them: every size of the node, to none", async () => {
  const names = await readdir("/sys/kernel/mm/hugepages");
  const sizes = names.map((name) => Number(/(\d+)kB$/.exec(name)?.[1]) / 1024).map((mib) => (mib < 1024 ? `${mib}MB` : `${mib / 1024}GB`));
  assert.ok(sizes.includes("2MB"), names.join(" "));
  await using pod = await node().runPod();
  const container = await pod.start({ linux: { resources: { hugepageLimits: sizes.map((pageSize) => ({ pageSize, limit: 0n })) } } });
  const limit = await hugepageLimit(container);
  if (limit !== undefined) assert.equal(limit, "0");
});

test("UpdateContainerResources changes what is set and leaves the rest", async () => {
  await using pod = await node().runPod();
  const container = await pod.start({
    linux: { resources: { memoryLimitInBytes: 64n * mebibyte, cpuQuota: 50_000n, cpuPeriod: 100_000n } },
  });
  await container.update(LinuxContainerResources.fromPartial({ memoryLimitInBytes: 96n * mebibyte }));
  const { memoryBytes, cpuQuota } = await kernelLimits(container);
  assert.deepEqual([memoryBytes, cpuQuota], [String(96n * mebibyte), "50000"]);
  await container.update(LinuxContainerResources.fromPartial({ cpuQuota: 20_000n, cpuPeriod: 100_000n }));
  assert.deepEqual(await kernelLimits(container).then((limits) => [limits.memoryBytes, limits.cpuQuota]), [
    String(96n * mebibyte),
    "20000",
  ]);
  const reported = (await container.status()).resources?.linux;
  assert.deepEqual([reported?.memoryLimitInBytes, reported?.cpuQuota], [96n * mebibyte, 20_000n]);
});

test("an update of a container not yet started holds when it starts", async () => {
  await using pod = await node().runPod();
  const container = await pod.create({ linux: { resources: { memoryLimitInBytes: 64n * mebibyte } } });
  await container.update(LinuxContainerResources.fromPartial({ memoryLimitInBytes: 80n * mebibyte }));
  await container.start();
  assert.equal((await kernelLimits(container)).memoryBytes, String(80n * mebibyte));
});

test("a container with a limit that the kernel refuses is refused by name, and leaves nothing", async () => {
  await using pod = await node().runPod();
  const impossible = { linux: { resources: { cpusetCpus: "4095" } } };
  const config = { metadata: { name: "limited" } };
  await assert.rejects(pod.create({ ...config, ...impossible }), /cpuset/);
  const { runtime } = node().clients;
  assert.deepEqual((await unary(runtime, runtime.listContainers, { filter: undefined })).containers, []);
  const container = await pod.start(config);
  assert.notEqual((await kernelLimits(container)).cpuset, "4095");
});

test("an update that the kernel refuses changes nothing", async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ linux: { resources: { memoryLimitInBytes: 64n * mebibyte } } });
  const impossible = LinuxContainerResources.fromPartial({ cpusetCpus: "4095", memoryLimitInBytes: 96n * mebibyte });
  await assert.rejects(container.update(impossible));
  if (node().kind === "aurae-cri") assert.equal((await kernelLimits(container)).memoryBytes, String(64n * mebibyte));
  assert.equal((await container.status()).resources?.linux?.memoryLimitInBytes, 64n * mebibyte);
});

test("container statistics: identity, CPU that grows, memory, writable layer", async () => {
  await using pod = await node().runPod();
  const script = "dd if=/dev/zero of=/tmp/file bs=1M count=4; while :; do :; done";
  const container = await pod.start({ labels: { busy: "yes" }, command: ["/bin/sh", "-c", script] });
  const { runtime } = node().clients;
  const sample = async () => (await unary(runtime, runtime.containerStats, { containerId: container.id })).stats;
  const first = await waitFor("the first CPU time", async () => {
    const stats = await sample();
    return (stats?.cpu?.usageCoreNanoSeconds?.value ?? 0n) > 0n ? stats : undefined;
  });
  await sleep(300);
  const second = await sample();
  assert.equal(second?.attributes?.id, container.id);
  assert.deepEqual(second?.attributes?.labels, { busy: "yes" });
  assert.ok((second?.cpu?.timestamp ?? 0n) > (first.cpu?.timestamp ?? 0n), "no cached sample");
  const usedNs = (second?.cpu?.usageCoreNanoSeconds?.value ?? 0n) - (first.cpu?.usageCoreNanoSeconds?.value ?? 0n);
  assert.ok(usedNs > 20_000_000n, `${usedNs} ns of CPU time in 300 ms of a busy loop`);
  assert.ok((second?.memory?.workingSetBytes?.value ?? 0n) > 0n);
  const layer = await waitFor(
    "four megabytes in the writable layer",
    async () => {
      const used = (await sample())?.writableLayer?.usedBytes?.value ?? 0n;
      return used >= 4n * mebibyte ? used : undefined;
    },
    { timeoutMs: 15_000, intervalMs: 300 },
  );
  assert.ok(layer < 16n * mebibyte);
});

test("lists of statistics: filters, several containers, pods", async () => {
  await using pod = await node().runPod({
    linux: { cgroupParent: node().prefix.cgroupParent, securityContext: { namespaceOptions: { pid: 1 } } },
  });
  const [left, right] = [await pod.start({ labels: { side: "left" } }), await pod.start({ labels: { side: "right" } })];
  const { runtime } = node().clients;
  const ids = async (filter: { id?: string; podSandboxId?: string; labelSelector?: Record<string, string> } | undefined) => {
    const full = filter === undefined ? undefined : { id: "", podSandboxId: "", labelSelector: {}, ...filter };
    const { stats } = await unary(runtime, runtime.listContainerStats, { filter: full });
    return new Set(stats.map((item) => item.attributes?.id));
  };
  assert.deepEqual(await ids(undefined), new Set([left.id, right.id]));
  assert.deepEqual(await ids({ id: left.id }), new Set([left.id]));
  assert.deepEqual(await ids({ labelSelector: { side: "right" } }), new Set([right.id]));
  assert.deepEqual(await ids({ podSandboxId: "f".repeat(64) }), new Set());

  const { stats } = await unary(runtime, runtime.podSandboxStats, { podSandboxId: pod.id });
  assert.equal(stats?.attributes?.id, pod.id);
  assert.deepEqual(new Set(stats?.linux?.containers.map((item) => item.attributes?.id)), new Set([left.id, right.id]));
  assert.ok((stats?.linux?.memory?.workingSetBytes?.value ?? 0n) > 0n);
  assert.equal(stats?.linux?.network?.defaultInterface?.name, "eth0");
  assert.ok((stats?.linux?.process?.processCount?.value ?? 0n) >= 2n);
  const list = await unary(runtime, runtime.listPodSandboxStats, { filter: undefined });
  assert.deepEqual(
    list.stats.map((item) => item.attributes?.id),
    [pod.id],
  );
});

test("runtime configuration, status and features", async () => {
  const { runtime } = node().clients;
  const config = await unary(runtime, runtime.runtimeConfig, {});
  assert.equal(config.linux?.cgroupDriver, cgroupDriver() === "systemd" ? CgroupDriver.SYSTEMD : CgroupDriver.CGROUPFS);
  await unary(runtime, runtime.updateRuntimeConfig, { runtimeConfig: { networkConfig: { podCidr: "10.1.0.0/16" } } });
  const { status: described, runtimeHandlers, features } = await unary(runtime, runtime.status, { verbose: true });
  assert.deepEqual(
    new Set(described?.conditions.map((condition) => condition.type)).isSupersetOf(new Set(["RuntimeReady", "NetworkReady"])),
    true,
  );
  assert.ok(runtimeHandlers.some((handler) => handler.name === ""));
  assert.equal(features?.supplementalGroupsPolicy, true);
});

test("an update of an unknown container is NotFound", async () => {
  const { runtime } = node().clients;
  const request = { containerId: "f".repeat(64), linux: LinuxContainerResources.fromPartial({}), windows: undefined, annotations: {} };
  await assertRefused(node().kind, unary(runtime, runtime.updateContainerResources, request), { code: status.NOT_FOUND, message: /f{64}/ });
});
