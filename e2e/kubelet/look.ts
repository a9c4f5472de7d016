import { PodSandboxState } from "../../api/gen/cri/v1/api.ts";
import { unary } from "../harness/cri-client.ts";
import type { Node } from "../harness/node.ts";
import type { PodObject } from "./api.ts";

/** A sandbox of a pod, as the runtime tells it. */
export interface Sandbox {
  readonly id: string;
  readonly isReady: boolean;
  readonly isolation: string;
  readonly reason: string;
}

/** The sandboxes of a pod, the newest first. */
export async function sandboxesOf(node: Node, pod: PodObject): Promise<readonly Sandbox[]> {
  const { runtime } = node.clients;
  const filter = { id: "", state: undefined, labelSelector: { "io.kubernetes.pod.uid": pod.metadata.uid } };
  const { items } = await unary(runtime, runtime.listPodSandbox, { filter });
  const newestFirst = items.toSorted((left, right) => Number(right.createdAt - left.createdAt));
  return await Promise.all(
    newestFirst.map(async ({ id, state }) => {
      const { info } = await unary(runtime, runtime.podSandboxStatus, { podSandboxId: id, verbose: true });
      const { isolation, reason } = JSON.parse(info["info"] ?? "") as { readonly isolation: string; readonly reason: string };
      return { id, isReady: state === PodSandboxState.SANDBOX_READY, isolation, reason };
    }),
  );
}

/** `isolation: reason` of each sandbox of a pod, the newest first. */
export async function placementsOf(node: Node, pod: PodObject): Promise<readonly string[]> {
  return (await sandboxesOf(node, pod)).map(({ isolation, reason }) => `${isolation}: ${reason}`);
}

export function isReady({ status }: PodObject): boolean {
  return status.phase === "Running" && hasCondition(status, "Ready");
}

export function isDone({ status }: PodObject): boolean {
  return status.phase === "Succeeded";
}

function hasCondition({ conditions = [] }: PodObject["status"], type: string): boolean {
  return conditions.some((condition) => condition.type === type && condition.status === "True");
}

/** `container ID, n restarts` of each container of a pod: the same text later means that nothing was started anew. */
export function lives({ status }: PodObject): readonly string[] {
  const containers = [...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])];
  return containers.map(({ name, containerID, restartCount }) => `${name} ${containerID}, ${restartCount} restarts`).sort();
}
