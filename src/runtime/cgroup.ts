import { type PodCgroup as AgentPodCgroup, CgroupDriver } from "../../api/gen/aurae/supervisor/v0/supervisor.ts";
import { containerCgroup, type PodCgroup } from "../host/cgroup-paths.ts";
import type { Pod, Runtime, RuntimeOptions } from "./runtime.ts";

/** What the supervisor contract says of a pod's cgroup. */
export function agentCgroup(podId: string, cgroup: PodCgroup): AgentPodCgroup {
  const driver = cgroup.driver === "systemd" ? CgroupDriver.CGROUP_DRIVER_SYSTEMD : CgroupDriver.CGROUP_DRIVER_CGROUPFS;
  return { driver, parent: cgroup.parent, owned: cgroup.owned, leaf: leafName(podId) };
}

/** The cgroups of a pod that are ours to empty and remove: all of it, or in the kubelet's cgroup only what we made there. */
export function ownedCgroups({ options }: Runtime, pod: Pod): readonly string[] {
  const { cgroup, placement } = pod.record;
  if (cgroup.owned) return [cgroup.path];
  const leaf = `${cgroup.path === "/" ? "" : cgroup.path}/${leafName(pod.id)}`;
  if (placement.mode === "microvm") return [leaf, vmCgroup(options, pod.id)];
  return [leaf, ...[...pod.containers.keys()].map((id) => containerCgroup(cgroup, id).path)];
}

/**
 * Where QEMU is accounted; empty: in the pod's leaf. With a RuntimeClass overhead the pod's limits have room for it. Without one it would be
 * killed by limits that were made for the containers alone, and gets a cgroup of ours.
 */
export function qemuCgroup({ options }: Runtime, { id, record }: Pod): string {
  const { config, cgroup } = record;
  return cgroup.owned || config.overhead?.memoryLimitBytes !== undefined ? "" : vmCgroup(options, id);
}

function vmCgroup({ instanceId }: RuntimeOptions, podId: string): string {
  return `/aurae-${instanceId}/vm${podId}`;
}

/** The leaf in which auraed and the pod's reaper sit, beside the containers'. */
function leafName(podId: string): string {
  return `aurae-${podId.slice(0, 16)}`;
}
