import type { ContainerConfig } from "./container-config.ts";
import type { SandboxConfig } from "./sandbox-config.ts";

/** The key under which CRI requires a pod to be unique. */
export function podName({ metadata }: SandboxConfig): string {
  return [metadata.name, metadata.namespace, metadata.uid, metadata.attempt].join("_");
}

/** The kubelet's note of when it first saw a static pod. It is another after the kubelet's restart, and says nothing of the pod. */
const SEEN_ANNOTATION = "kubernetes.io/config.seen";

/** What makes two requests for a pod identical. */
export function podFingerprint({ config, handler }: { readonly config: SandboxConfig; readonly handler: string }): string {
  const { [SEEN_ANNOTATION]: _, ...annotations } = config.annotations;
  return JSON.stringify([{ ...config, annotations }, handler]);
}

/** The key under which CRI requires a container to be unique in its pod. */
export function containerName(podId: string, { metadata }: ContainerConfig): string {
  return [podId, metadata.name, metadata.attempt].join("_");
}

/** What makes two requests for a container identical. */
export function containerFingerprint(config: ContainerConfig): string {
  return JSON.stringify(config);
}
