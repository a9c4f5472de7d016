import { join } from "node:path";

import { Agent } from "../agent/agent.ts";
import type { CgroupDriver } from "../host/cgroups.ts";
import type { KeyedQueue } from "../lib/keyed-queue.ts";
import type { Log } from "../lib/log.ts";
import type { Turns } from "../lib/turns.ts";
import type { ContainerEvent, ContainerRecord } from "./container.ts";
import { nextContainerState } from "./container.ts";
import { containerEventsUntil, type EventKind, type Events, podEventsUntil } from "./events.ts";
import type { Names } from "./names.ts";
import type { HostFacts } from "./oci/input.ts";
import type { PlacementPolicy } from "./placement/placement.ts";
import type { Refusals } from "./placement/refusals.ts";
import type { PodEvent, PodRecord } from "./pod.ts";
import { nextPodState } from "./pod.ts";
import type { Cdi, Images, Metrics, Network, PodHistory, PodHost, Store, Virtualization, Vmm } from "./ports.ts";
import type { Rates } from "./stats.ts";
import type { UserNamespaceSupport } from "./user-namespace.ts";

export interface RuntimeOptions {
  /** Durable: pods' records and scratch directories. */
  readonly rootDir: string;
  /** Gone with the boot: sockets, pinned namespaces, mounts. */
  readonly stateDir: string;
  readonly bundleDir: string;
  /** Part of the name of everything the daemon makes outside its own directories. */
  readonly instanceId: string;
  readonly bootId: string;
  readonly nodeName: string;
  readonly policy: PlacementPolicy;
  readonly cgroupDriver: CgroupDriver;
  readonly hostFacts: HostFacts;
  readonly userNamespaces: UserNamespaceSupport;
}

/** What every operation of the runtime works on. Operations are functions of it, one file each. */
export interface Runtime {
  readonly options: RuntimeOptions;
  readonly log: Log;
  readonly store: Store;
  readonly images: Images;
  readonly cdi: Cdi;
  readonly network: Network;
  readonly host: PodHost;
  readonly virtualization: Virtualization;
  readonly vmm: Vmm;
  readonly metrics: Metrics;
  readonly history: PodHistory;
  readonly pods: Map<string, Pod>;
  readonly containers: Map<string, Container>;
  readonly podNames: Names;
  readonly containerNames: Names;
  /** One writer per pod: every change to a pod or its containers runs here under the pod's id. */
  readonly actions: KeyedQueue;
  readonly rates: Rates;
  /** Of guests to boot: a storm of them would take the processors from each other until all are late. */
  readonly boots: Turns;
  /** Rebuilt from the records at the daemon's start. */
  readonly refusals: Refusals;
  readonly events: Events;
  /** Aborts when the daemon stops: ends watches, and attempts that nobody waits for any more. */
  readonly shutdown: AbortSignal;
}

/** A pod sandbox in memory: its record, the connection to its auraed, and its one writer. */
export class Pod {
  record: PodRecord;
  readonly containers = new Map<string, Container>();
  /** Events that clients were told, or the last daemon's clients: there is no replay. */
  readonly announced: Set<EventKind>;
  #agent: Agent | undefined;
  readonly #socketPath: string;

  constructor(record: PodRecord, stateDir: string) {
    this.record = record;
    this.announced = new Set(podEventsUntil(record.state));
    this.#socketPath = join(podStateDir(stateDir, record.id), "auraed.sock");
  }

  get id(): string {
    return this.record.id;
  }

  get agent(): Agent {
    this.#agent ??= new Agent(this.#socketPath);
    return this.#agent;
  }

  disconnect(): void {
    this.#agent?.[Symbol.dispose]();
    this.#agent = undefined;
  }

  apply(event: PodEvent): void {
    this.record = { ...this.record, state: nextPodState(this.record.state, event) };
  }
}

/** A container in memory. */
export class Container {
  record: ContainerRecord;
  readonly pod: Pod;
  /** As a pod's. */
  readonly announced: Set<EventKind>;
  readonly #exited = Promise.withResolvers<void>();

  constructor(record: ContainerRecord, pod: Pod) {
    this.record = record;
    this.pod = pod;
    this.announced = new Set(containerEventsUntil(record.state));
    if (record.state.phase === "exited") this.#exited.resolve();
  }

  get id(): string {
    return this.record.id;
  }

  /** Resolves when the container is EXITED. */
  get exited(): Promise<void> {
    return this.#exited.promise;
  }

  apply(event: ContainerEvent): void {
    this.record = { ...this.record, state: nextContainerState(this.record.state, event) };
    if (this.record.state.phase === "exited") this.#exited.resolve();
  }
}

/**
 * A pod's directory under the state root. Its name is a prefix of the id, because a unix socket's path holds 107 bytes; ids are made so that
 * the prefix is unique.
 */
export function podStateDir(stateDir: string, podId: string): string {
  return join(stateDir, "pods", podId.slice(0, 16));
}

export function podRootDir(rootDir: string, podId: string): string {
  return join(rootDir, "pods", podId);
}

/** The overlay's upper and work directories. */
export function containerScratchDir(rootDir: string, container: { readonly id: string; readonly podId: string }): string {
  return join(podRootDir(rootDir, container.podId), "containers", container.id);
}

export function containerStateDir(stateDir: string, container: { readonly id: string; readonly podId: string }): string {
  return join(podStateDir(stateDir, container.podId), "containers", container.id.slice(0, 16));
}

/** OCI bundle of a container. */
export function bundleDir(options: RuntimeOptions, containerId: string): string {
  return join(options.bundleDir, containerId);
}
