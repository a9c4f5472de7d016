import { failpoint } from "../lib/failpoint.ts";
import { findPod } from "./lookup.ts";
import { discard } from "./remove-container.ts";
import { type Pod, podRootDir, type Runtime } from "./runtime.ts";
import { dropPod, forgetPod } from "./save.ts";
import { tearDown } from "./teardown.ts";

/** Kills the pod's containers and gives back its network, namespaces and cgroups; the pod stays listed as NOTREADY. Idempotent. */
export async function stopPod(runtime: Runtime, id: string, options: { readonly signal: AbortSignal }): Promise<void> {
  const pod = findPod(runtime, id);
  if (pod === undefined) return;
  await runtime.actions.run(pod.id, options.signal, () => tearDown(runtime, pod, options));
}

/** Stops the pod when it still runs, and removes it with its containers. Idempotent. */
export async function removePod(runtime: Runtime, id: string, options: { readonly signal: AbortSignal }): Promise<void> {
  const pod = findPod(runtime, id);
  if (pod === undefined) return;
  await runtime.actions.run(pod.id, options.signal, () => remove(runtime, pod, options));
}

async function remove(runtime: Runtime, pod: Pod, options: { readonly signal: AbortSignal }): Promise<void> {
  if (!runtime.pods.has(pod.id)) return;
  await tearDown(runtime, pod, options);
  failpoint("runtime.pod.remove.torn-down");
  for (const container of [...pod.containers.values()]) await discard(runtime, container, options);
  await forgetPod(runtime, pod);
  await runtime.host.removeTree(podRootDir(runtime.options.rootDir, pod.id), options);
  dropPod(runtime, pod);
}
