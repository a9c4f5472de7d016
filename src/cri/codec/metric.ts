import type { CpuStats, DetailedStats, FilesystemStats, InterfaceStats, MemoryStats } from "../../../api/gen/aurae/pod/v0/pod.ts";
import { MetricType } from "../../../api/gen/cri/v1/api.ts";
import type { Resources } from "../../runtime/sandbox-config.ts";

/** A container, or a pod as a whole, as far as metrics tell of it. */
export interface Subject {
  readonly timestampNs: bigint;
  /** Undefined: it has not started. */
  readonly startedAtNs: bigint | undefined;
  readonly cpu: CpuStats | undefined;
  readonly memory: MemoryStats | undefined;
  readonly processCount: bigint;
  readonly detail: DetailedStats | undefined;
  /** A container's. */
  readonly writableLayer: FilesystemStats | undefined;
  /** What is in force for a container. */
  readonly resources: Resources | undefined;
  /** A pod's. */
  readonly interfaces: readonly InterfaceStats[];
}

/** A value, and those of the metric's own labels. */
export type MetricValue = readonly [value: bigint, ...labels: string[]];

/** One metric: its descriptor and where its values come from. A figure that the kernel does not have is no value. */
export interface MetricDefinition {
  readonly name: string;
  readonly help: string;
  readonly type: MetricType;
  /** Beside those that every metric has. */
  readonly labels: readonly string[];
  readonly values: (subject: Subject) => readonly MetricValue[];
}

type Read = (subject: Subject) => bigint | undefined;

export function counter(name: string, help: string, read: Read): MetricDefinition {
  return { name: `container_${name}`, help, type: MetricType.COUNTER, labels: [], values: single(read) };
}

export function gauge(name: string, help: string, read: Read): MetricDefinition {
  return { name: `container_${name}`, help, type: MetricType.GAUGE, labels: [], values: single(read) };
}

function single(read: Read): MetricDefinition["values"] {
  return (subject) => {
    const value = read(subject);
    return value === undefined ? [] : [[value]];
  };
}

export function labelled(
  type: "counter" | "gauge",
  name: string,
  help: string,
  labels: readonly string[],
  values: MetricDefinition["values"],
): MetricDefinition {
  return { name: `container_${name}`, help, type: type === "counter" ? MetricType.COUNTER : MetricType.GAUGE, labels, values };
}

/** Values are integers: what is less than a second is cut off. */
export function seconds(ns: bigint): bigint;
export function seconds(ns: bigint | undefined): bigint | undefined;
export function seconds(ns: bigint | undefined): bigint | undefined {
  return ns === undefined ? undefined : ns / 1_000_000_000n;
}
