import type { PodNetwork } from "./ports.ts";
import type { Wait } from "./realm.ts";
import type { Pod, Runtime } from "./runtime.ts";

/** CNI ADD for a pod whose network namespace is pinned. */
export function attachNetwork(runtime: Runtime, pod: Pod, netnsPath: string, wait: Wait): Promise<PodNetwork> {
  const { metadata, portMappings } = pod.record.config;
  const request = {
    podId: pod.id,
    podName: metadata.name,
    podNamespace: metadata.namespace,
    podUid: metadata.uid,
    netnsPath,
    portMappings: portMappings.filter((mapping) => mapping.hostPort !== 0),
  };
  return runtime.network.attach(request, wait);
}
