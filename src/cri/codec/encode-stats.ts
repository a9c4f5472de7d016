import type { CpuStats, InterfaceStats, MemoryStats, PressureLine, PressureStats } from "../../../api/gen/aurae/pod/v0/pod.ts";
import type {
  CpuUsage,
  ContainerStats as CriContainerStats,
  PodSandboxStats as CriPodStats,
  MemoryUsage,
  NetworkInterfaceUsage,
  NetworkUsage,
  PsiStats,
  SwapUsage,
  UInt64Value,
} from "../../../api/gen/cri/v1/api.ts";
import type { ContainerRecord } from "../../runtime/container.ts";
import type { Runtime } from "../../runtime/runtime.ts";
import type { ContainerSample, PodSample } from "../../runtime/stats.ts";

/** The pod's interface that CNI makes; CRI lists it apart from the others. */
const DEFAULT_INTERFACE = "eth0";

export function encodeContainerStats(runtime: Runtime, record: ContainerRecord, sample: ContainerSample | undefined): CriContainerStats {
  const attributes = {
    id: record.id,
    metadata: { ...record.config.metadata },
    labels: { ...record.config.labels },
    annotations: { ...record.config.annotations },
  };
  if (sample === undefined) {
    return { attributes, cpu: undefined, memory: undefined, writableLayer: undefined, swap: undefined, io: undefined };
  }
  const { timestampNs, cpu, memory, writableLayer } = sample.stats;
  return {
    attributes,
    cpu: encodeCpu(timestampNs, cpu, sample.usageNanoCores),
    memory: encodeMemory(timestampNs, memory),
    writableLayer: writableLayer && {
      timestamp: timestampNs,
      fsId: { mountpoint: runtime.options.rootDir },
      usedBytes: value(writableLayer.usedBytes),
      inodesUsed: value(writableLayer.inodesUsed),
    },
    swap: encodeSwap(timestampNs, memory),
    io: undefined,
  };
}

export function encodePodStats(runtime: Runtime, sample: PodSample): CriPodStats {
  const { id, config } = sample.pod.record;
  const { timestampNs, cpu, memory, processCount, interfaces } = sample.stats;
  return {
    attributes: { id, metadata: { ...config.metadata }, labels: { ...config.labels }, annotations: { ...config.annotations } },
    linux: {
      cpu: encodeCpu(timestampNs, cpu, sample.usageNanoCores),
      memory: encodeMemory(timestampNs, memory),
      network: encodeNetwork(timestampNs, interfaces),
      process: { timestamp: timestampNs, processCount: value(processCount) },
      containers: sample.containers.map((one) => encodeContainerStats(runtime, one.container.record, one)),
      io: undefined,
    },
    windows: undefined,
  };
}

function encodeCpu(timestamp: bigint, cpu: CpuStats | undefined, usageNanoCores: bigint | undefined): CpuUsage | undefined {
  return (
    cpu && {
      timestamp,
      usageCoreNanoSeconds: value(cpu.usageCoreNs),
      usageNanoCores: usageNanoCores === undefined ? undefined : value(usageNanoCores),
      psi: encodePressure(cpu.pressure),
    }
  );
}

function encodeMemory(timestamp: bigint, memory: MemoryStats | undefined): MemoryUsage | undefined {
  if (memory === undefined) return undefined;
  const { limitBytes, workingSetBytes } = memory;
  const available = limitBytes > workingSetBytes ? limitBytes - workingSetBytes : 0n;
  return {
    timestamp,
    workingSetBytes: value(workingSetBytes),
    availableBytes: limitBytes === 0n ? undefined : value(available),
    usageBytes: value(memory.usageBytes),
    rssBytes: value(memory.rssBytes),
    pageFaults: value(memory.pageFaults),
    majorPageFaults: value(memory.majorPageFaults),
    psi: encodePressure(memory.pressure),
  };
}

function encodeSwap(timestamp: bigint, memory: MemoryStats | undefined): SwapUsage | undefined {
  const usage = memory?.swapUsageBytes;
  if (usage === undefined) return undefined;
  const limit = memory?.swapLimitBytes;
  const available = limit === undefined ? undefined : value(limit > usage ? limit - usage : 0n);
  return { timestamp, swapUsageBytes: value(usage), swapAvailableBytes: available };
}

function encodeNetwork(timestamp: bigint, interfaces: readonly InterfaceStats[]): NetworkUsage {
  const encoded = interfaces.map(encodeInterface);
  return {
    timestamp,
    defaultInterface: encoded.find(({ name }) => name === DEFAULT_INTERFACE),
    interfaces: encoded.filter(({ name }) => name !== DEFAULT_INTERFACE),
  };
}

function encodeInterface({ name, rxBytes, rxErrors, txBytes, txErrors }: InterfaceStats): NetworkInterfaceUsage {
  return { name, rxBytes: value(rxBytes), rxErrors: value(rxErrors), txBytes: value(txBytes), txErrors: value(txErrors) };
}

function encodePressure(pressure: PressureStats | undefined): PsiStats | undefined {
  return pressure && { Full: encodePressureLine(pressure.full), Some: encodePressureLine(pressure.some) };
}

function encodePressureLine(line: PressureLine | undefined): PsiStats["Full"] {
  return line && { Total: line.totalNs, Avg10: line.avg10, Avg60: line.avg60, Avg300: line.avg300 };
}

function value(number: bigint): UInt64Value {
  return { value: number };
}
