import { failpoint } from "../lib/failpoint.ts";
import { removePodRecord, writePodRecord } from "../store/pod-records.ts";
import { type Container, type Pod, podRootDir, type Runtime } from "./runtime.ts";

/**
 * Makes a pod's present record durable: in the database, and with its containers' in the pod's own directory, from which a lost database is
 * rebuilt.
 */
export async function savePod(runtime: Runtime, pod: Pod): Promise<void> {
  failpoint("runtime.pod.save.before");
  await Promise.all([runtime.store.write([{ op: "put", kind: "pod", id: pod.id, value: pod.record }]), writeDirectoryRecord(runtime, pod)]);
  failpoint("runtime.pod.save.after");
}

/** Forgets a pod and whatever containers it still has. */
export async function forgetPod(runtime: Runtime, pod: Pod): Promise<void> {
  failpoint("runtime.pod.forget.before");
  await removePodRecord(podRootDir(runtime.options.rootDir, pod.id));
  await runtime.store.write([
    ...[...pod.containers.keys()].map((id) => ({ op: "delete", kind: "container", id }) as const),
    { op: "delete", kind: "pod", id: pod.id },
  ]);
  failpoint("runtime.pod.forget.after");
}

export async function saveContainer(runtime: Runtime, container: Container): Promise<void> {
  failpoint("runtime.container.save.before");
  await Promise.all([
    runtime.store.write([{ op: "put", kind: "container", id: container.id, value: container.record }]),
    writeDirectoryRecord(runtime, container.pod),
  ]);
  failpoint("runtime.container.save.after");
}

/** Forgets a container that is no longer among its pod's. */
export async function forgetContainer(runtime: Runtime, container: Container): Promise<void> {
  failpoint("runtime.container.forget.before");
  await Promise.all([
    runtime.store.write([{ op: "delete", kind: "container", id: container.id }]),
    writeDirectoryRecord(runtime, container.pod),
  ]);
  failpoint("runtime.container.forget.after");
}

function writeDirectoryRecord(runtime: Runtime, pod: Pod): Promise<void> {
  return writePodRecord(podRootDir(runtime.options.rootDir, pod.id), {
    pod: pod.record,
    containers: [...pod.containers.values()].map((container) => container.record),
  });
}
