import { type ContainerEventResponse, ContainerEventType } from "../../../api/gen/cri/v1/api.ts";
import type { EventKind, LifeEvent } from "../../runtime/events.ts";
import { encodeContainerStatuses } from "./encode-container.ts";
import { encodePodStatus } from "./encode-pod.ts";

const TYPES: { readonly [Kind in EventKind]: ContainerEventType } = {
  created: ContainerEventType.CONTAINER_CREATED_EVENT,
  started: ContainerEventType.CONTAINER_STARTED_EVENT,
  stopped: ContainerEventType.CONTAINER_STOPPED_EVENT,
  deleted: ContainerEventType.CONTAINER_DELETED_EVENT,
};

export function encodeLifeEvent({ kind, id, atNs, pod, containers }: LifeEvent): ContainerEventResponse {
  return {
    containerId: id,
    containerEventType: TYPES[kind],
    createdAt: atNs,
    podSandboxStatus: encodePodStatus(pod),
    containersStatuses: encodeContainerStatuses(containers),
  };
}
