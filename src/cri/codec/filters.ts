import {
  type ContainerFilter,
  type ContainerState,
  type ContainerStatsFilter,
  type PodSandboxFilter,
  type PodSandboxState,
} from "../../../api/gen/cri/v1/api.ts";
import { findContainer, findPod } from "../../runtime/lookup.ts";
import type { Container, Pod, Runtime } from "../../runtime/runtime.ts";
import { encodeContainerState } from "./encode-container.ts";
import { encodePodState } from "./encode-pod.ts";

interface PodQuery {
  readonly id: string;
  readonly state?: { readonly state: PodSandboxState } | undefined;
  readonly labelSelector: { readonly [key: string]: string };
}

/** Pods that satisfy every part of the filter, newest last. No filter is all; a filter that nothing satisfies is an empty list. */
export function matchPods(runtime: Runtime, filter: PodSandboxFilter | PodQuery | undefined): readonly Pod[] {
  const query: PodQuery = filter ?? { id: "", labelSelector: {} };
  const named = query.id === "" ? [...runtime.pods.values()] : [findPod(runtime, query.id)].filter((pod) => pod !== undefined);
  return named.filter(
    ({ record }) =>
      record.state.phase !== "creating" &&
      (query.state === undefined || encodePodState(record.state) === query.state.state) &&
      hasLabels(record.config.labels, query.labelSelector),
  );
}

interface ContainerQuery {
  readonly id: string;
  readonly podSandboxId: string;
  readonly state?: { readonly state: ContainerState } | undefined;
  readonly labelSelector: { readonly [key: string]: string };
}

export function matchContainers(runtime: Runtime, filter: ContainerFilter | ContainerQuery | undefined): readonly Container[] {
  const query: ContainerQuery = filter ?? { id: "", podSandboxId: "", labelSelector: {} };
  const named = query.id === "" ? [...runtime.containers.values()] : [findContainer(runtime, query.id)].filter((one) => one !== undefined);
  const pod = query.podSandboxId === "" ? undefined : findPod(runtime, query.podSandboxId);
  if (query.podSandboxId !== "" && pod === undefined) return [];
  return named.filter(
    (container) =>
      container.record.state.phase !== "creating" &&
      (pod === undefined || container.pod === pod) &&
      (query.state === undefined || encodeContainerState(container.record.state) === query.state.state) &&
      hasLabels(container.record.config.labels, query.labelSelector),
  );
}

/** Stats are of containers that have a cgroup: created and running ones. */
export function matchContainersForStats(runtime: Runtime, filter: ContainerStatsFilter | undefined): readonly Container[] {
  return matchContainers(runtime, filter).filter(({ record }) => record.state.phase !== "exited");
}

function hasLabels(labels: { readonly [key: string]: string }, selector: { readonly [key: string]: string }): boolean {
  return Object.entries(selector).every(([key, value]) => labels[key] === value);
}
