import assert from "node:assert/strict";
import { test } from "node:test";

import { status } from "@grpc/grpc-js";

import { LinuxContainerResources } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { unary } from "../harness/cri-client.ts";
import type { Pod } from "../harness/pod.ts";
import { runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";

const skip = runtimeUnderTest() === "containerd" ? "about our microVMs" : false;
const node = useNode({ pods: "both" });
const MIB = 1n << 20n;

function resize(pod: Pod, resources: Partial<LinuxContainerResources>): Promise<unknown> {
  const { runtime } = node().clients;
  const linux = LinuxContainerResources.fromPartial(resources);
  return unary(runtime, runtime.updatePodSandboxResources, { podSandboxId: pod.id, overhead: undefined, resources: linux });
}

/** What the pod may still use, as its own cgroup in the guest has it; undefined without a limit. */
async function availableMib(pod: Pod): Promise<bigint | undefined> {
  const { runtime } = node().clients;
  const { stats } = await unary(runtime, runtime.podSandboxStats, { podSandboxId: pod.id });
  const memory = stats?.linux?.memory;
  const [available, used] = [memory?.availableBytes?.value, memory?.workingSetBytes?.value ?? 0n];
  return available === undefined ? undefined : (available + used) / MIB;
}

/** Of the pod as a whole. */
async function throttledPeriods(pod: Pod): Promise<bigint> {
  const { runtime } = node().clients;
  const { podMetrics } = await unary(runtime, runtime.listPodSandboxMetrics, {});
  const own = podMetrics.find(({ podSandboxId }) => podSandboxId === pod.id)?.metrics ?? [];
  return own.find(({ name }) => name === "container_cpu_cfs_throttled_periods_total")?.value?.value ?? 0n;
}

test("a microVM's pod is bound to a smaller size and let go again; it cannot grow, and says so", { skip }, async () => {
  const resources = { memoryLimitInBytes: 160n * MIB, cpuQuota: 100_000n, cpuPeriod: 100_000n };
  await using pod = await node().runPod({ runtimeHandler: "aurae-vm", linux: { resources } });
  const container = await pod.start();
  const hog = async () => (await container.exec(["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=90M", "count=1"])).exitCode;
  assert.equal(await hog(), 0, "it has room for that");

  await resize(pod, { memoryLimitInBytes: 64n * MIB, cpuQuota: 20_000n, cpuPeriod: 100_000n });
  assert.equal(await availableMib(pod), 64n);
  assert.notEqual(await hog(), 0, "no room any more");
  await container.exec(["/bin/timeout", "1", "/bin/sh", "-c", "while :; do :; done"]);
  assert.ok((await throttledPeriods(pod)) > 0n, "a fifth of a CPU is soon used up");

  const grow = (field: string) => ({
    code: status.FAILED_PRECONDITION,
    message: new RegExp(`^resources\\.${field}: .*microVM has .*cannot grow`),
  });
  await assertRefused(node().kind, resize(pod, { memoryLimitInBytes: 4096n * MIB }), grow("memory_limit_in_bytes"));
  await assertRefused(node().kind, resize(pod, { cpuQuota: 900_000n, cpuPeriod: 100_000n }), grow("cpu_quota"));
  await assertRefused(node().kind, resize(pod, { memoryLimitInBytes: 4096n }), { code: status.FAILED_PRECONDITION, message: /in use/ });
  assert.equal(await availableMib(pod), 64n, "what was refused changed nothing");

  await resize(pod, { memoryLimitInBytes: 160n * MIB, cpuQuota: -1n });
  assert.equal(await hog(), 0);
});
