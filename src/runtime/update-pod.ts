import { wrongState } from "./errors.ts";
import { getPod } from "./lookup.ts";
import { type PodResources, podResources } from "./pod.ts";
import type { Pod, Runtime } from "./runtime.ts";
import { savePod } from "./save.ts";

/**
 * Records a READY pod's new size; what is absent stays. A flat pod's cgroup is its client's, who has changed it before this call: there is nothing
 * else to do.
 */
export async function updatePod(
  runtime: Runtime,
  id: string,
  change: PodResources,
  options: { readonly signal: AbortSignal },
): Promise<void> {
  const pod = getPod(runtime, id);
  await runtime.actions.run(pod.id, options.signal, () => update(runtime, pod, change));
}

async function update(runtime: Runtime, pod: Pod, change: PodResources): Promise<void> {
  const { phase } = pod.record.state;
  if (phase !== "ready") throw wrongState("pod sandbox", pod.id, phase, "only a READY pod has resources");
  const { overhead, resources } = podResources(pod.record);
  pod.record = { ...pod.record, updated: { overhead: change.overhead ?? overhead, resources: change.resources ?? resources } };
  await savePod(runtime, pod);
}
