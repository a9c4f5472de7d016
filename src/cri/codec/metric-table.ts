import type { DeviceStats, InterfaceStats, PressureStats } from "../../../api/gen/aurae/pod/v0/pod.ts";
import { counter, gauge, labelled, type MetricDefinition, type MetricValue, type Subject, seconds } from "./metric.ts";

/** Of the kernel, for a container whose client sets none. */
const DEFAULT_CPU_PERIOD_US = 100_000;
const DEFAULT_CPU_SHARES = 1024;

const cpu: readonly MetricDefinition[] = [
  counter("cpu_usage_seconds_total", "CPU time consumed.", ({ cpu: own }) => seconds(own?.usageCoreNs)),
  counter("cpu_user_seconds_total", "CPU time consumed in user mode.", ({ cpu: own }) => seconds(own?.userNs)),
  counter("cpu_system_seconds_total", "CPU time consumed in the kernel.", ({ cpu: own }) => seconds(own?.systemNs)),
  counter("cpu_cfs_periods_total", "Periods of the CPU quota that have passed.", ({ cpu: own }) => own?.throttling?.periods),
  counter(
    "cpu_cfs_throttled_periods_total",
    "Periods in which the CPU quota was used up.",
    ({ cpu: own }) => own?.throttling?.throttledPeriods,
  ),
  counter("cpu_cfs_throttled_seconds_total", "Time for which the CPU quota held tasks back.", ({ cpu: own }) =>
    seconds(own?.throttling?.throttledNs),
  ),
];

const memory: readonly MetricDefinition[] = [
  gauge("memory_usage_bytes", "Memory in use, page cache included.", ({ memory: own }) => own?.usageBytes),
  gauge("memory_working_set_bytes", "Memory in use less inactive file pages.", ({ memory: own }) => own?.workingSetBytes),
  gauge("memory_rss", "Anonymous memory, in bytes.", ({ memory: own }) => own?.rssBytes),
  gauge("memory_cache", "Page cache, in bytes.", ({ memory: own }) => own?.cacheBytes),
  gauge("memory_mapped_file", "Mapped files, in bytes.", ({ memory: own }) => own?.mappedFileBytes),
  gauge("memory_kernel_usage", "Memory of the kernel's own, in bytes.", ({ memory: own }) => own?.kernelBytes),
  gauge("memory_swap", "Swap in use, in bytes.", ({ memory: own }) => own?.swapUsageBytes),
  gauge("memory_max_usage_bytes", "The most memory that was ever in use.", ({ memory: own }) => own?.maxUsageBytes),
  counter("memory_failcnt", "How often the memory limit was hit.", ({ memory: own }) => own?.limitHits),
  labelled("counter", "memory_failures_total", "Page faults.", ["failure_type", "scope"], faults),
  counter("oom_events_total", "Processes that the kernel ended for want of memory.", ({ detail }) => detail?.oomKills),
  labelled("gauge", "hugetlb_usage_bytes", "Huge pages in use.", ["pagesize"], ({ detail }) =>
    (detail?.hugetlb ?? []).map(({ usageBytes, pageSize }) => [usageBytes, pageSize]),
  ),
  labelled("gauge", "hugetlb_max_usage_bytes", "The most huge pages that were ever in use.", ["pagesize"], ({ detail }) =>
    (detail?.hugetlb ?? []).flatMap(({ maxUsageBytes, pageSize }) =>
      maxUsageBytes === undefined ? [] : [[maxUsageBytes, pageSize] as const],
    ),
  ),
];

/** Whoever watches these asks for the scope of a container, or with what is below it: one cgroup is both. */
function faults({ memory: own }: Subject): readonly MetricValue[] {
  if (own === undefined) return [];
  const kinds = [
    [own.pageFaults, "pgfault"],
    [own.majorPageFaults, "pgmajfault"],
  ] as const;
  return kinds.flatMap(([count, kind]) => [[count, kind, "container"] as const, [count, kind, "hierarchy"] as const]);
}

const pressure: readonly MetricDefinition[] = [
  ...pressureOf("cpu", "the CPU", (subject) => subject.cpu?.pressure),
  ...pressureOf("io", "I/O", (subject) => subject.detail?.ioPressure),
  ...pressureOf("memory", "memory", (subject) => subject.memory?.pressure),
];

function pressureOf(name: string, what: string, read: (subject: Subject) => PressureStats | undefined): readonly MetricDefinition[] {
  return [
    counter(`pressure_${name}_waiting_seconds_total`, `Time in which some tasks waited for ${what}.`, (subject) =>
      seconds(read(subject)?.some?.totalNs),
    ),
    counter(`pressure_${name}_stalled_seconds_total`, `Time in which all tasks waited for ${what}.`, (subject) =>
      seconds(read(subject)?.full?.totalNs),
    ),
  ];
}

const processes: readonly MetricDefinition[] = [
  gauge("processes", "Processes.", ({ processCount }) => processCount),
  gauge("threads", "Threads.", ({ detail }) => detail?.threads),
  gauge("threads_max", "The most threads allowed; 0: no limit.", ({ detail }) => detail?.threadLimit),
  gauge("file_descriptors", "Open file descriptors of all processes.", ({ detail }) => detail?.openFiles),
  gauge("sockets", "Open sockets of all processes.", ({ detail }) => detail?.sockets),
  labelled("gauge", "ulimits_soft", "Soft limits of the first process.", ["ulimit"], ({ detail }) =>
    detail?.openFileLimit === undefined ? [] : [[detail.openFileLimit, "max_open_files"]],
  ),
  gauge("start_time_seconds", "When it was started, in seconds of Unix time.", ({ startedAtNs }) => seconds(startedAtNs)),
  gauge("last_seen", "When these figures were taken, in seconds of Unix time.", ({ timestampNs }) => seconds(timestampNs)),
];

const limits: readonly MetricDefinition[] = [
  gauge(
    "spec_cpu_period",
    "Period of the CPU quota, in microseconds.",
    ({ resources }) => resources && BigInt(resources.cpuPeriodUs ?? DEFAULT_CPU_PERIOD_US),
  ),
  gauge("spec_cpu_quota", "CPU time allowed in a period, in microseconds.", ({ resources }) =>
    resources?.cpuQuotaUs === undefined || resources.cpuQuotaUs <= 0 ? undefined : BigInt(resources.cpuQuotaUs),
  ),
  gauge(
    "spec_cpu_shares",
    "Weight when CPUs are contended.",
    ({ resources }) => resources && BigInt(resources.cpuShares ?? DEFAULT_CPU_SHARES),
  ),
  gauge("spec_memory_limit_bytes", "The most memory allowed; 0: no limit.", ({ memory: own }) => own?.limitBytes),
  gauge("spec_memory_swap_limit_bytes", "The most swap allowed.", ({ memory: own }) => own?.swapLimitBytes),
  gauge("spec_memory_reservation_limit_bytes", "Memory that is kept for it; 0: none.", ({ memory: own }) => own?.reservationBytes),
];

/** The file system of the writable layer, and the block devices that were used, through whichever file system. */
const files: readonly MetricDefinition[] = [
  layer("fs_usage_bytes", "What the writable layer takes.", ({ usedBytes }) => usedBytes),
  layer("fs_limit_bytes", "Size of the file system that the writable layer lies on.", ({ capacityBytes }) => capacityBytes),
  layer("fs_inodes_total", "Inodes of that file system.", ({ inodesTotal }) => (inodesTotal === 0n ? undefined : inodesTotal)),
  layer("fs_inodes_free", "Free inodes of that file system.", ({ inodesTotal, inodesFree }) =>
    inodesTotal === 0n ? undefined : inodesFree,
  ),
  device("fs_reads_total", "Reads.", ({ reads }) => reads),
  device("fs_reads_bytes_total", "Bytes read.", ({ readBytes }) => readBytes),
  device("fs_writes_total", "Writes.", ({ writes }) => writes),
  device("fs_writes_bytes_total", "Bytes written.", ({ writeBytes }) => writeBytes),
  labelled("counter", "blkio_device_usage_total", "Bytes by operation.", ["device", "major", "minor", "operation"], ({ detail }) =>
    (detail?.devices ?? []).flatMap(({ name, major, minor, readBytes, writeBytes }) => [
      [readBytes, nodePath(name), String(major), String(minor), "Read"] as const,
      [writeBytes, nodePath(name), String(major), String(minor), "Write"] as const,
    ]),
  ),
];

type Layer = NonNullable<Subject["writableLayer"]>;

function layer(name: string, help: string, read: (layer: Layer) => bigint | undefined): MetricDefinition {
  return labelled("gauge", name, help, ["device"], ({ writableLayer }) => {
    const value = writableLayer && read(writableLayer);
    return writableLayer === undefined || value === undefined ? [] : [[value, nodePath(writableLayer.device)]];
  });
}

/** Devices that share a path, because the kernel has no name for them, would be one series twice: the first is told. */
function device(name: string, help: string, read: (device: DeviceStats) => bigint): MetricDefinition {
  return labelled("counter", name, help, ["device"], ({ detail }) => {
    const values = new Map((detail?.devices ?? []).toReversed().map((one) => [nodePath(one.name), read(one)]));
    return [...values].map(([path, value]) => [value, path] as const);
  });
}

function nodePath(name: string): string {
  return name === "" ? "" : `/dev/${name}`;
}

const network: readonly MetricDefinition[] = [
  interfaces("network_receive_bytes_total", "Bytes received.", ({ rxBytes }) => rxBytes),
  interfaces("network_receive_packets_total", "Packets received.", ({ rxPackets }) => rxPackets),
  interfaces("network_receive_errors_total", "Errors while receiving.", ({ rxErrors }) => rxErrors),
  interfaces("network_receive_packets_dropped_total", "Packets dropped while receiving.", ({ rxDropped }) => rxDropped),
  interfaces("network_transmit_bytes_total", "Bytes sent.", ({ txBytes }) => txBytes),
  interfaces("network_transmit_packets_total", "Packets sent.", ({ txPackets }) => txPackets),
  interfaces("network_transmit_errors_total", "Errors while sending.", ({ txErrors }) => txErrors),
  interfaces("network_transmit_packets_dropped_total", "Packets dropped while sending.", ({ txDropped }) => txDropped),
];

function interfaces(name: string, help: string, read: (one: InterfaceStats) => bigint): MetricDefinition {
  return labelled("counter", name, help, ["interface"], (subject) => subject.interfaces.map((one) => [read(one), one.name]));
}

/** Every metric, under the names that cAdvisor gave them. */
export const METRICS: readonly MetricDefinition[] = [...cpu, ...memory, ...pressure, ...processes, ...limits, ...files, ...network];
