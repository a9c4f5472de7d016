import { readFile } from "node:fs/promises";

import {
  type ContainerStatus,
  type Container as CriContainer,
  ContainerState as CriContainerState,
  type ImageSpec,
  type LinuxContainerResources,
  type Mount,
  MountPropagation,
  Signal,
} from "../../../api/gen/cri/v1/api.ts";
import type { ContainerRecord, ContainerState, ContainerUser } from "../../runtime/container.ts";
import type { MountRequest } from "../../runtime/container-config.ts";
import { sandboxOf } from "../../runtime/pod.ts";
import { bundleDir, type Container, type Runtime } from "../../runtime/runtime.ts";
import type { Resources } from "../../runtime/sandbox-config.ts";
import { parseSignal } from "../../runtime/stop-signal.ts";

/** `creating` is never shown; the table is total so that the compiler can see it. */
const STATES = {
  creating: CriContainerState.CONTAINER_UNKNOWN,
  created: CriContainerState.CONTAINER_CREATED,
  running: CriContainerState.CONTAINER_RUNNING,
  exited: CriContainerState.CONTAINER_EXITED,
} as const;

export function encodeContainerState(state: ContainerState): CriContainerState {
  return STATES[state.phase];
}

/** An item of ListContainers. */
export function encodeContainer(record: ContainerRecord): CriContainer {
  const { id, podId, config, imageRef, imageId, createdAtNs, state } = record;
  return {
    id,
    podSandboxId: podId,
    metadata: { ...config.metadata },
    image: encodeImageSpec(config.userSpecifiedImage),
    imageRef,
    imageId,
    state: encodeContainerState(state),
    createdAt: BigInt(createdAtNs),
    labels: { ...config.labels },
    annotations: { ...config.annotations },
  };
}

/** Of a pod's containers. One whose creation is under way is not there yet. */
export function encodeContainerStatuses(records: readonly ContainerRecord[]): ContainerStatus[] {
  return records.filter(({ state }) => state.phase !== "creating").map(encodeContainerStatus);
}

export function encodeContainerStatus(record: ContainerRecord): ContainerStatus {
  const { podSandboxId: _podId, ...common } = encodeContainer(record);
  const { config, imageVolumes, logPath, state, user } = record;
  const exit = state.phase === "exited" ? state : undefined;
  return {
    ...common,
    startedAt: state.phase === "running" || state.phase === "exited" ? BigInt(state.startedAtNs) : 0n,
    finishedAt: BigInt(exit?.finishedAtNs ?? 0),
    exitCode: exit?.exitCode ?? 0,
    reason: exit?.reason ?? "",
    message: exit?.message ?? "",
    mounts: config.mounts.map((mount, index) => encodeMount(mount, imageVolumes?.find((volume) => volume.index === index)?.imageId)),
    logPath,
    resources: { linux: encodeResources(config.resources), windows: undefined },
    user: user && { linux: encodeUser(user) },
    stopSignal: SIGNALS.get(record.stopSignal) ?? Signal.SIGNAL_RUNTIME_DEFAULT,
  };
}

/**
 * Verbose info under the keys that scripts read from other runtimes. `pid` is always one of this host, for whoever enters its namespaces or
 * cgroup: of a container in a microVM it is QEMU's, and `guestPid` is the container's own.
 */
export async function encodeContainerInfo(runtime: Runtime, { id, pod, record }: Container): Promise<{ [key: string]: string }> {
  const { podId, config, state } = record;
  const own = state.phase === "created" || state.phase === "running" ? state.pid : 0;
  const guest = sandboxOf(pod.record.state)?.guest;
  const pids = guest === undefined ? { pid: own } : { pid: own === 0 ? 0 : (guest.vmmPid ?? 0), guestPid: own };
  const { privileged } = config.security;
  const info = {
    sandboxID: podId,
    ...pids,
    privileged,
    config,
    runtimeSpec: await readSpec(`${bundleDir(runtime.options, id)}/config.json`),
  };
  return { info: JSON.stringify(info) };
}

async function readSpec(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, "utf8"));
  } catch {
    // Gone with a stopped pod, or being written: the rest of the info is still worth having.
    return undefined;
  }
}

const PROPAGATIONS = {
  private: MountPropagation.PROPAGATION_PRIVATE,
  "host-to-container": MountPropagation.PROPAGATION_HOST_TO_CONTAINER,
  bidirectional: MountPropagation.PROPAGATION_BIDIRECTIONAL,
} as const;

/** `imageId`: of the image that is mounted. */
function encodeMount(mount: MountRequest, imageId: string | undefined): Mount {
  const { source } = mount;
  return {
    containerPath: mount.containerPath,
    hostPath: source.type === "host" ? source.path : "",
    readonly: mount.readonly !== "no",
    recursiveReadOnly: mount.readonly === "recursive",
    selinuxRelabel: mount.selinuxRelabel,
    propagation: PROPAGATIONS[mount.propagation],
    uidMappings: mount.uidMappings.map((mapping) => ({ ...mapping })),
    gidMappings: mount.gidMappings.map((mapping) => ({ ...mapping })),
    image: source.type === "image" ? { ...encodeImageSpec(source.image), imageRef: imageId ?? "" } : undefined,
    imageSubPath: source.type === "image" ? source.subPath : "",
    mountOptions: [...mount.options],
  };
}

function encodeResources(resources: Resources): LinuxContainerResources {
  return {
    cpuPeriod: BigInt(resources.cpuPeriodUs ?? 0),
    cpuQuota: BigInt(resources.cpuQuotaUs ?? 0),
    cpuShares: BigInt(resources.cpuShares ?? 0),
    memoryLimitInBytes: BigInt(resources.memoryLimitBytes ?? 0),
    memorySwapLimitInBytes: BigInt(resources.memorySwapLimitBytes ?? 0),
    oomScoreAdj: BigInt(resources.oomScoreAdj ?? 0),
    cpusetCpus: resources.cpusetCpus ?? "",
    cpusetMems: resources.cpusetMems ?? "",
    hugepageLimits: (resources.hugepageLimits ?? []).map(({ pageSize, limitBytes }) => ({ pageSize, limit: BigInt(limitBytes) })),
    unified: { ...resources.unified },
  };
}

function encodeUser({ uid, gid, additionalGids }: ContainerUser) {
  return { uid: BigInt(uid), gid: BigInt(gid), supplementalGroups: additionalGids.map(BigInt) };
}

function encodeImageSpec(image: string): ImageSpec {
  return { image, annotations: {}, userSpecifiedImage: image, runtimeHandler: "", imageRef: "" };
}

/** CRI's enum by signal number. */
const SIGNALS: ReadonlyMap<number, Signal> = new Map(
  Object.entries(Signal).flatMap(([name, value]) => {
    const number = parseSignal(name.replace("SIGNAL_", ""));
    return number === undefined ? [] : [[number, value] as const];
  }),
);
