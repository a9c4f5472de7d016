import { failpoint } from "../lib/failpoint.ts";
import { nowNs } from "../lib/time.ts";
import { removePodRecord, writePodRecord } from "../store/pod-records.ts";
import type { ContainerRecord } from "./container.ts";
import { containerEventsUntil, type EventKind, podEventsUntil } from "./events.ts";
import { explainPod, withRemoved } from "./explain.ts";
import { containerName, podName } from "./identity.ts";
import { type Container, type Pod, podRootDir, type Runtime } from "./runtime.ts";

/**
 * Makes a pod's present record durable: in the database, and with its containers' in the pod's own directory, from which a lost database is
 * rebuilt. What of it is news to clients is announced then.
 */
export async function savePod(runtime: Runtime, pod: Pod): Promise<void> {
  failpoint("runtime.pod.save.before");
  const { record } = pod;
  await Promise.all([runtime.store.write([{ op: "put", kind: "pod", id: pod.id, value: record }]), writeDirectoryRecord(runtime, pod)]);
  failpoint("runtime.pod.save.after");
  announce(runtime, pod, pod, podEventsUntil(record.state));
}

/** Forgets a pod and whatever containers it still has; what explains it stays in the history. */
export async function forgetPod(runtime: Runtime, pod: Pod): Promise<void> {
  failpoint("runtime.pod.forget.before");
  await keepHistory(runtime, pod);
  await removePodRecord(podRootDir(runtime.options.rootDir, pod.id));
  await runtime.store.write([
    ...[...pod.containers.keys()].map((id) => ({ op: "delete", kind: "container", id }) as const),
    { op: "delete", kind: "pod", id: pod.id },
  ]);
  failpoint("runtime.pod.forget.after");
}

/** A history that cannot be written is no reason to keep a pod. */
async function keepHistory(runtime: Runtime, pod: Pod): Promise<void> {
  try {
    await runtime.history.keep(pod.id, explainPod(pod.record, containerRecords(pod)));
  } catch (error) {
    runtime.log.warn("the history of a pod could not be kept", { podId: pod.id }, error);
  }
}

/** A pod that is gone in every respect leaves the list, and its name is free. */
export function dropPod(runtime: Runtime, pod: Pod): void {
  runtime.pods.delete(pod.id);
  runtime.rates.delete(pod.id);
  runtime.podNames.release(podName(pod.record.config), pod.id);
  announceDeleted(runtime, pod, pod);
}

export async function saveContainer(runtime: Runtime, container: Container): Promise<void> {
  failpoint("runtime.container.save.before");
  const { record } = container;
  await Promise.all([
    runtime.store.write([{ op: "put", kind: "container", id: container.id, value: record }]),
    writeDirectoryRecord(runtime, container.pod),
  ]);
  failpoint("runtime.container.save.after");
  announce(runtime, container.pod, container, containerEventsUntil(record.state));
}

/** Forgets a container that is no longer among its pod's; its name is free then. */
export async function forgetContainer(runtime: Runtime, container: Container): Promise<void> {
  failpoint("runtime.container.forget.before");
  const { pod } = container;
  pod.record = withRemoved(pod.record, container.record);
  const writes = [
    { op: "delete", kind: "container", id: container.id } as const,
    { op: "put", kind: "pod", id: pod.id, value: pod.record } as const,
  ];
  await Promise.all([runtime.store.write(writes), writeDirectoryRecord(runtime, pod)]);
  failpoint("runtime.container.forget.after");
  runtime.containers.delete(container.id);
  runtime.rates.delete(container.id);
  runtime.containerNames.release(containerName(container.pod.id, container.record.config), container.id);
  announceDeleted(runtime, container.pod, container);
}

/** Publishes what clients have not been told yet of the events behind a state that is durable. Saves that overtake each other repeat nothing. */
function announce(runtime: Runtime, pod: Pod, changed: Pod | Container, events: readonly EventKind[]): void {
  for (const kind of events) {
    if (changed.announced.has(kind)) continue;
    changed.announced.add(kind);
    runtime.events.publish({ kind, id: changed.id, atNs: nowNs(), pod: pod.record, containers: containerRecords(pod) });
  }
}

/** What was rolled back before anyone was told of it goes in silence. */
function announceDeleted(runtime: Runtime, pod: Pod, gone: Pod | Container): void {
  if (gone.announced.has("created")) announce(runtime, pod, gone, ["deleted"]);
}

function writeDirectoryRecord(runtime: Runtime, pod: Pod): Promise<void> {
  return writePodRecord(podRootDir(runtime.options.rootDir, pod.id), {
    pod: pod.record,
    containers: containerRecords(pod),
  });
}

function containerRecords(pod: Pod): readonly ContainerRecord[] {
  return [...pod.containers.values()].map(({ record }) => record);
}
