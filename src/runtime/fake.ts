import { KeyedQueue } from "../lib/keyed-queue.ts";
import { silentLog } from "../lib/log.ts";
import { Turns } from "../lib/turns.ts";
import { Events } from "./events.ts";
import { Names } from "./names.ts";
import { hostFacts, sandbox } from "./oci/test-input.ts";
import { Refusals } from "./placement/refusals.ts";
import type { PodRecord } from "./pod.ts";
import type { Metrics, RecordWrite, Virtualization, VirtualizationReport } from "./ports.ts";
import type { Runtime, RuntimeOptions } from "./runtime.ts";

// For tests of single operations: the rooms below are absent, and one that is called all the same fails loudly.

export interface FakeRuntime extends Runtime {
  /** Every write, in order. */
  readonly writes: RecordWrite[];
  readonly kept: Map<string, unknown>;
  readonly placed: Parameters<Metrics["podPlaced"]>[0][];
  readonly phases: Parameters<Metrics["startPhase"]>[0][];
}

export function fakeRuntime(
  rootDir: string,
  changes: Partial<Runtime> & { readonly settings?: Partial<RuntimeOptions> } = {},
): FakeRuntime {
  const { settings, ...parts } = changes;
  const writes: RecordWrite[] = [];
  const kept = new Map<string, unknown>();
  const placed: FakeRuntime["placed"] = [];
  const phases: FakeRuntime["phases"] = [];
  return {
    options: {
      rootDir,
      stateDir: rootDir,
      bundleDir: rootDir,
      instanceId: "0badcafe",
      bootId: "boot",
      nodeName: "node",
      policy: "prefer-vm",
      cgroupDriver: "cgroupfs",
      hostFacts,
      userNamespaces: { supported: true },
      ...settings,
    },
    log: silentLog,
    store: {
      async write(batch) {
        writes.push(...batch);
      },
      list: async () => [],
    },
    images: absent("images"),
    cdi: absent("cdi"),
    network: absent("network"),
    host: absent("host"),
    vmm: absent("vmm"),
    virtualization: fixed({ state: "available", accelerator: "kvm", message: "" }),
    metrics: { podPlaced: (labels) => void placed.push(labels), startPhase: (sample) => void phases.push(sample) },
    history: {
      async keep(id, value) {
        kept.set(id, value);
      },
    },
    pods: new Map(),
    containers: new Map(),
    podNames: new Names(),
    containerNames: new Names(),
    actions: new KeyedQueue({ maxWaiting: 16 }),
    rates: new Map(),
    boots: new Turns({ limit: 2, longestMs: 10_000 }),
    refusals: new Refusals(),
    events: new Events({ maxWaiting: 16 }, { log: silentLog }),
    shutdown: new AbortController().signal,
    writes,
    kept,
    placed,
    phases,
    ...parts,
  };
}

/** Virtualization about which all is known. */
export function fixed(report: VirtualizationReport): Virtualization {
  return { report: () => report, settled: async () => report, lookAgain: async () => report };
}

export function fakePodRecord(changes: Partial<PodRecord> = {}): PodRecord {
  return {
    version: 1,
    id: "f".repeat(64),
    config: sandbox,
    handler: "",
    placement: { mode: "microvm", reason: "Default", message: "the default is a microVM" },
    bootId: "boot",
    cgroup: { driver: "cgroupfs", parent: "/p", path: "/p", owned: false },
    createdAtNs: "1",
    state: { phase: "creating" },
    ...changes,
  };
}

function absent(room: string): never {
  return new Proxy({} as never, {
    get(_target, name) {
      throw new Error(`this test has no ${room}, whose ${String(name)} was asked for`);
    },
  });
}
