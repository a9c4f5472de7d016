import { type PodSandbox, type PodSandboxNetworkStatus, PodSandboxState, type PodSandboxStatus } from "../../../api/gen/cri/v1/api.ts";
import type { ContainerRecord } from "../../runtime/container.ts";
import { explainPod } from "../../runtime/explain.ts";
import type { NamespacePaths, PodRecord, PodState } from "../../runtime/pod.ts";
import { podResources, sandboxOf } from "../../runtime/pod.ts";
import { encodeNamespaces } from "./encode-namespaces.ts";

export function encodePodState(state: PodState): PodSandboxState {
  return state.phase === "ready" ? PodSandboxState.SANDBOX_READY : PodSandboxState.SANDBOX_NOTREADY;
}

/** An item of ListPodSandbox. */
export function encodePod(record: PodRecord): PodSandbox {
  const { id, config, createdAtNs, handler, state } = record;
  return {
    id,
    metadata: { ...config.metadata },
    state: encodePodState(state),
    createdAt: BigInt(createdAtNs),
    labels: { ...config.labels },
    annotations: { ...config.annotations },
    runtimeHandler: handler,
  };
}

export function encodePodStatus(record: PodRecord): PodSandboxStatus {
  return {
    ...encodePod(record),
    network: encodeNetwork(record.state),
    linux: { namespaces: { options: encodeNamespaces(record.config.namespaces) } },
  };
}

/** Addresses are the pod's only while it is READY; a pod on the host's network has none of its own. */
function encodeNetwork(state: PodState): PodSandboxNetworkStatus {
  const [ip = "", ...others] = state.phase === "ready" ? (state.sandbox.network?.ips ?? []) : [];
  return { ip, additionalIps: others.map((other) => ({ ip: other })) };
}

/**
 * Verbose info under the keys that scripts read from other runtimes: pid (QEMU's, of a microVM), config, cniResult, the namespaces of
 * runtimeSpec; and where the pod runs, and why. `why` is the whole explanation, for `aurae-cri why`.
 */
export function encodePodInfo(record: PodRecord, containers: readonly ContainerRecord[]): { [key: string]: string } {
  const { config, handler, cgroup, state } = record;
  const why = explainPod(record, containers);
  const sandbox = sandboxOf(state);
  const info = {
    pid: sandbox?.guest?.vmmPid ?? sandbox?.auraed.pid ?? 0,
    supervisorPid: sandbox?.auraed.pid ?? 0,
    phase: state.phase,
    crash: why.crash,
    isolation: why.isolation,
    reason: why.reason,
    message: why.message,
    timeline: why.timeline,
    runtimeHandler: handler,
    cgroup: cgroup.path,
    namespaces: sandbox?.namespaces,
    runtimeSpec: sandbox && { linux: { namespaces: ociNamespaces(sandbox.namespaces) } },
    cniResult: sandbox?.network?.cniResult,
    ...podResources(record),
    config,
  };
  return { info: JSON.stringify(info), why: JSON.stringify(why) };
}

/** Those of the pod's own, as an OCI specification lists them. */
function ociNamespaces(paths: NamespacePaths): readonly { readonly type: string; readonly path: string }[] {
  return Object.entries(paths).flatMap(([type, path]: [string, string]) => (path === "" ? [] : [{ type, path }]));
}
