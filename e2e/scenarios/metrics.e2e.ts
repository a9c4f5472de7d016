import assert from "node:assert/strict";
import { test } from "node:test";

import type { Metric, PodSandboxMetrics } from "../../api/gen/cri/v1/api.ts";
import { unary } from "../harness/cri-client.ts";
import { readStream } from "../harness/cri-stream.ts";
import { runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const skip = runtimeUnderTest() === "containerd" ? "it lacks nine of the metrics" : false;
const node = useNode({ pods: "both" });

interface Series {
  readonly value: bigint;
  readonly labels: Readonly<Record<string, string | undefined>>;
}

async function descriptors(): Promise<ReadonlyMap<string, readonly string[]>> {
  const { runtime } = node().clients;
  const answer = await unary(runtime, runtime.listMetricDescriptors, {});
  return new Map(answer.descriptors.map(({ name, labelKeys }) => [name, labelKeys]));
}

/** By name without its prefix; every series must have the labels that are described. */
async function byName(metrics: readonly Metric[]): Promise<ReadonlyMap<string, readonly Series[]>> {
  const keys = await descriptors();
  const series = metrics.map(({ name, labelValues, value }) => {
    const labelKeys = keys.get(name) ?? assert.fail(`${name} is not described`);
    assert.equal(labelValues.length, labelKeys.length, name);
    return [
      name.replace("container_", ""),
      { value: value?.value ?? 0n, labels: Object.fromEntries(labelKeys.map((key, at) => [key, labelValues[at]])) },
    ] as const;
  });
  const groups = Map.groupBy(series, ([name]) => name);
  return new Map([...groups].map(([name, members]) => [name, members.map(([, one]) => one)]));
}

async function metricsOf(podId: string): Promise<PodSandboxMetrics> {
  const { runtime } = node().clients;
  const { podMetrics } = await unary(runtime, runtime.listPodSandboxMetrics, {});
  return podMetrics.find(({ podSandboxId }) => podSandboxId === podId) ?? assert.fail("the pod has no metrics");
}

/** What v1 cgroups do not keep. The pressure of a container is kept by v2 alone. */
const ONLY_V2 = ["cpu", "io", "memory"].flatMap((name) => [
  `pressure_${name}_waiting_seconds_total`,
  `pressure_${name}_stalled_seconds_total`,
]);
/** A kernel without the controller of huge pages, a container that used no disk. */
const OPTIONAL = /^hugetlb_|^blkio_|^fs_(reads|writes)_|^memory_swap$|^spec_memory_swap_limit_bytes$/;
const OF_PODS = /^network_/;

for (const [runtimeHandler, absent] of [
  ["aurae-flat", ONLY_V2],
  ["aurae-vm", ["hugetlb_max_usage_bytes"]],
] as const) {
  test(`every metric that the kernel has, with the figures of what the container does, ${runtimeHandler}`, { skip }, async () => {
    await using pod = await node().runPod({ runtimeHandler });
    const resources = { cpuPeriod: 100_000n, cpuQuota: 10_000n, cpuShares: 512n, memoryLimitInBytes: 64n << 20n };
    const script = "dd if=/dev/zero of=/kept bs=1M count=4 2>/dev/null; nc -l -p 9 & while :; do :; done & exec sleep 1000";
    const container = await pod.start({ command: ["/bin/sh", "-c", script], linux: { resources } });
    await container.shell("while ! pidof nc >/dev/null; do sleep 0.1; done");
    const throttled = ({ containerMetrics }: PodSandboxMetrics) =>
      containerMetrics[0]?.metrics.some(
        ({ name, value }) => name === "container_cpu_cfs_throttled_periods_total" && (value?.value ?? 0n) > 0n,
      );
    const seen = await waitFor("a busy loop to use its tenth of a CPU up", async () => {
      const found = await metricsOf(pod.id);
      return throttled(found) ? found : undefined;
    });
    const { metrics, containerMetrics } = seen;
    const [own] = containerMetrics;
    assert.equal(own?.containerId, container.id);
    const figures = await byName(own?.metrics ?? []);
    const one = (name: string) => figures.get(name)?.[0]?.value ?? assert.fail(`no ${name}`);

    const missing = [...(await descriptors()).keys()].map((name) => name.replace("container_", "")).filter((name) => !figures.has(name));
    assert.deepEqual(
      missing.filter((name) => !OPTIONAL.test(name) && !OF_PODS.test(name) && !(absent as readonly string[]).includes(name)),
      [],
    );
    for (const name of absent) assert.ok(!figures.has(name), `${name} is not kept there`);

    assert.ok(one("cpu_cfs_periods_total") >= one("cpu_cfs_throttled_periods_total"));
    assert.ok(one("cpu_usage_seconds_total") + 1n >= one("cpu_user_seconds_total") + one("cpu_system_seconds_total"));
    assert.deepEqual([one("spec_cpu_period"), one("spec_cpu_quota"), one("spec_cpu_shares")], [100_000n, 10_000n, 512n]);
    assert.equal(one("spec_memory_limit_bytes"), 64n << 20n);
    assert.ok(one("memory_usage_bytes") > 0n && one("memory_max_usage_bytes") >= one("memory_usage_bytes"));
    assert.ok(
      one("fs_usage_bytes") >= 4n << 20n && one("fs_limit_bytes") > one("fs_usage_bytes") && one("fs_inodes_total") > one("fs_inodes_free"),
    );
    assert.deepEqual([one("processes"), one("sockets"), one("oom_events_total")], [3n, 1n, 0n]);
    assert.ok(one("threads") >= 3n && one("file_descriptors") > 6n && one("ulimits_soft") > 0n);
    const started = (await container.status()).startedAt;
    assert.equal(one("start_time_seconds"), started / 1_000_000_000n);
    assert.ok(one("last_seen") >= one("start_time_seconds"));
    const { labels } = figures.get("memory_rss")?.[0] ?? assert.fail("no memory_rss");
    assert.deepEqual(
      [labels["name"], labels["pod"], labels["namespace"], labels["image"]],
      [container.id, pod.config.metadata?.name, "e2e", node().registry.reference("busybox")],
    );
    assert.match(labels["id"] ?? "", new RegExp(`${container.id}(\\.scope)?$`));

    const whole = await byName(metrics);
    assert.deepEqual(
      whole.get("network_receive_bytes_total")?.map((series) => [series.labels["interface"], series.labels["container"]]),
      [["eth0", ""]],
      "the pod's own interface alone",
    );
    assert.ok((whole.get("memory_usage_bytes")?.[0]?.value ?? 0n) >= one("memory_usage_bytes"));
    assert.ok((whole.get("processes")?.[0]?.value ?? 0n) >= 2n);
  });
}

test("the stream has each pod once, like the list; a pod that is stopped is in neither", { skip }, async () => {
  await using first = await node().runPod({ runtimeHandler: "aurae-flat" });
  await using second = await node().runPod({ runtimeHandler: "aurae-flat" });
  await second.start();
  const { runtime } = node().clients;
  const streamed = async () =>
    (await readStream(runtime, runtime.streamPodSandboxMetrics, {}))
      .flatMap(({ podSandboxMetrics }) => podSandboxMetrics.map(({ podSandboxId }) => podSandboxId))
      .toSorted();
  const listed = async () =>
    (await unary(runtime, runtime.listPodSandboxMetrics, {})).podMetrics.map(({ podSandboxId }) => podSandboxId).toSorted();
  assert.deepEqual(await streamed(), [first.id, second.id].toSorted());
  assert.deepEqual(await listed(), await streamed());
  await second.stop();
  assert.deepEqual(await streamed(), [first.id]);
  assert.deepEqual(await listed(), [first.id]);
});
