import assert from "node:assert/strict";
import { suite, test } from "node:test";

import { ContainerStats, PodStats } from "../../../api/gen/aurae/pod/v0/pod.ts";
import { MetricType, type PodSandboxMetrics } from "../../../api/gen/cri/v1/api.ts";
import type { ContainerRecord } from "../../runtime/container.ts";
import { fakePodRecord } from "../../runtime/fake.ts";
import { container as plain } from "../../runtime/oci/test-input.ts";
import type { Container, Pod } from "../../runtime/runtime.ts";
import type { PodSample } from "../../runtime/stats.ts";
import { encodeMetricDescriptors, encodePodMetrics } from "./encode-metrics.ts";

/** What the conformance suite asks for, each after `container_`. */
const NAMES = `blkio_device_usage_total cpu_cfs_periods_total cpu_cfs_throttled_periods_total cpu_cfs_throttled_seconds_total
  cpu_system_seconds_total cpu_usage_seconds_total cpu_user_seconds_total file_descriptors fs_inodes_free fs_inodes_total fs_limit_bytes
  fs_reads_bytes_total fs_reads_total fs_usage_bytes fs_writes_bytes_total fs_writes_total hugetlb_max_usage_bytes hugetlb_usage_bytes
  last_seen memory_cache memory_failcnt memory_failures_total memory_kernel_usage memory_mapped_file memory_max_usage_bytes memory_rss
  memory_swap memory_usage_bytes memory_working_set_bytes network_receive_bytes_total network_receive_errors_total
  network_receive_packets_dropped_total network_receive_packets_total network_transmit_bytes_total network_transmit_errors_total
  network_transmit_packets_dropped_total network_transmit_packets_total oom_events_total pressure_cpu_stalled_seconds_total
  pressure_cpu_waiting_seconds_total pressure_io_stalled_seconds_total pressure_io_waiting_seconds_total
  pressure_memory_stalled_seconds_total pressure_memory_waiting_seconds_total processes sockets spec_cpu_period spec_cpu_quota
  spec_cpu_shares spec_memory_limit_bytes spec_memory_reservation_limit_bytes spec_memory_swap_limit_bytes start_time_seconds threads
  threads_max ulimits_soft`.split(/\s+/);

const line = (totalNs: bigint) => ({ totalNs, avg10: 0, avg60: 0, avg300: 0 });
const pressure = { some: line(2_500_000_000n), full: line(1_000_000_000n) };

/** Every figure there is. */
const everything = ContainerStats.fromPartial({
  containerId: "c",
  timestampNs: 1_700_000_000_500_000_000n,
  cpu: {
    usageCoreNs: 3_900_000_000n,
    userNs: 2_000_000_000n,
    systemNs: 999_999_999n,
    throttling: { periods: 10n, throttledPeriods: 3n, throttledNs: 1_000_000_000n },
    pressure,
  },
  memory: {
    usageBytes: 1000n,
    workingSetBytes: 900n,
    pageFaults: 7n,
    majorPageFaults: 2n,
    swapUsageBytes: 0n,
    swapLimitBytes: 0n,
    cacheBytes: 1n,
    mappedFileBytes: 1n,
    kernelBytes: 1n,
    maxUsageBytes: 2000n,
    limitHits: 0n,
    reservationBytes: 0n,
    pressure,
  },
  processCount: 2n,
  writableLayer: { usedBytes: 4096n, inodesUsed: 3n, capacityBytes: 1n, inodesTotal: 2n, inodesFree: 1n, device: "vda1" },
  detail: {
    devices: [
      { major: 254, minor: 0, name: "vda", readBytes: 10n, writeBytes: 20n, reads: 1n, writes: 2n },
      { major: 0, minor: 40, name: "", readBytes: 5n },
      { major: 0, minor: 41, name: "", readBytes: 6n },
    ],
    ioPressure: pressure,
    hugetlb: [{ pageSize: "2MB", usageBytes: 0n, maxUsageBytes: 1n }],
    threads: 4n,
    threadLimit: 0n,
    openFiles: 9n,
    sockets: 1n,
    openFileLimit: 1024n,
    oomKills: 0n,
  },
});

const pod = { record: fakePodRecord({ id: "p", createdAtNs: "1600000000000000000" }) } as Pod;
const config = { ...plain, resources: { cpuQuotaUs: 20_000, cpuPeriodUs: 50_000 } };
const state = { phase: "running", pid: 1, startedAtNs: "1700000000000000000" } as const;
const container = { id: "c", record: { id: "c", config, state } as ContainerRecord } as Container;

function sample(stats: ContainerStats): PodSample {
  const whole = PodStats.fromPartial({ timestampNs: 5n, interfaces: [{ name: "eth0", rxBytes: 11n }, { name: "eth1" }] });
  return { pod, stats: whole, usageNanoCores: undefined, containers: [{ container, stats, usageNanoCores: undefined }] };
}

const descriptors = encodeMetricDescriptors();

function keysOf(name: string): readonly string[] {
  return descriptors.find((one) => one.name === name)?.labelKeys ?? [];
}

/** Values by name and the labels that `only` names. */
function valuesOf({ metrics, containerMetrics }: PodSandboxMetrics, name: string, ...only: string[]) {
  const found = [...metrics, ...containerMetrics.flatMap((one) => one.metrics)].filter((one) => one.name === `container_${name}`);
  const keys = keysOf(`container_${name}`);
  return found.map(({ labelValues, value }) => [value?.value, ...only.map((label) => labelValues[keys.indexOf(label)])]);
}

suite("the metrics of a pod", () => {
  const told = encodePodMetrics(sample(everything));

  test("are the 56 that the conformance suite names, each described", () => {
    assert.deepEqual(
      descriptors.map(({ name }) => name).sort(),
      NAMES.map((name) => `container_${name}`),
    );
    for (const { name, help, labelKeys } of descriptors) assert.ok(help.length > 5 && new Set(labelKeys).size === labelKeys.length, name);
  });

  test("all have a value where the kernel says all, with as many labels as are described, and no series twice", () => {
    const all = [...told.metrics, ...told.containerMetrics.flatMap(({ metrics }) => metrics)];
    assert.equal(new Set(all.map(({ name }) => name)).size, NAMES.length);
    for (const { name, labelValues } of all) assert.equal(labelValues.length, keysOf(name).length, name);
    assert.equal(new Set(all.map(({ name, labelValues }) => JSON.stringify([name, labelValues]))).size, all.length);
  });

  test("seconds are whole, gauges and counters told apart, times in nanoseconds", () => {
    const own = new Map(told.containerMetrics[0]?.metrics.map((metric) => [metric.name, metric]));
    assert.equal(own.get("container_cpu_usage_seconds_total")?.value?.value, 3n);
    assert.equal(own.get("container_cpu_system_seconds_total")?.value?.value, 0n);
    assert.equal(own.get("container_cpu_usage_seconds_total")?.metricType, MetricType.COUNTER);
    assert.equal(own.get("container_memory_rss")?.metricType, MetricType.GAUGE);
    assert.equal(own.get("container_last_seen")?.value?.value, 1_700_000_000n);
    assert.equal(own.get("container_last_seen")?.timestamp, everything.timestampNs);
    assert.equal(own.get("container_pressure_io_waiting_seconds_total")?.value?.value, 2n);
    assert.equal(own.get("container_pressure_io_stalled_seconds_total")?.value?.value, 1n);
  });

  test("the container's own labels, and the pod's with neither container nor image", () => {
    const labels = ["container", "id", "image", "name", "namespace", "pod"];
    assert.deepEqual(valuesOf(told, "memory_usage_bytes", ...labels), [[1000n, "nginx", "/p/c", "nginx", "c", "default", "web"]]);
    assert.deepEqual(valuesOf(told, "start_time_seconds", ...labels), [
      [1_600_000_000n, "", "/p", "", "p", "default", "web"],
      [1_700_000_000n, "nginx", "/p/c", "nginx", "c", "default", "web"],
    ]);
  });

  test("what comes in several: interfaces, devices, faults, limits", () => {
    assert.deepEqual(valuesOf(told, "network_receive_bytes_total", "interface", "name"), [
      [11n, "eth0", "p"],
      [0n, "eth1", "p"],
    ]);
    const reads = valuesOf(told, "fs_reads_bytes_total", "device").map(([value, device]) => [device, value] as const);
    assert.deepEqual(
      new Map(reads),
      new Map([
        ["/dev/vda", 10n],
        ["", 5n],
      ]),
      "devices without a name are told once",
    );
    assert.equal(reads.length, 2);
    assert.equal(valuesOf(told, "blkio_device_usage_total").length, 6);
    assert.deepEqual(valuesOf(told, "memory_failures_total", "failure_type", "scope"), [
      [7n, "pgfault", "container"],
      [7n, "pgfault", "hierarchy"],
      [2n, "pgmajfault", "container"],
      [2n, "pgmajfault", "hierarchy"],
    ]);
    assert.deepEqual(
      ["spec_cpu_period", "spec_cpu_quota", "spec_cpu_shares"].map((name) => valuesOf(told, name)),
      [[[50_000n]], [[20_000n]], [[1024n]]],
    );
  });

  test("what the kernel does not say is left out, never zero", () => {
    const bare = encodePodMetrics(sample(ContainerStats.fromPartial({ cpu: {}, memory: {}, writableLayer: { device: "" } })));
    const names = new Set(bare.containerMetrics[0]?.metrics.map(({ name }) => name.replace("container_", "")));
    for (const name of ["cpu_user_seconds_total", "memory_cache", "memory_swap", "threads", "ulimits_soft", "fs_inodes_total"])
      assert.ok(!names.has(name), name);
    for (const name of NAMES.filter((one) => /pressure|hugetlb|throttled|blkio|fs_reads|network/.test(one)))
      assert.ok(!names.has(name), name);
    assert.ok(names.has("cpu_usage_seconds_total") && names.has("memory_usage_bytes") && names.has("fs_usage_bytes"));
  });
});
