import { type PodCgroup as AgentPodCgroup, CgroupDriver } from "../../api/gen/aurae/supervisor/v0/supervisor.ts";
import { containerCgroup, type PodCgroup } from "../host/cgroup-paths.ts";
import type { Pod } from "./runtime.ts";

/** What the supervisor contract says of a pod's cgroup. */
export function agentCgroup(podId: string, cgroup: PodCgroup): AgentPodCgroup {
  const driver = cgroup.driver === "systemd" ? CgroupDriver.CGROUP_DRIVER_SYSTEMD : CgroupDriver.CGROUP_DRIVER_CGROUPFS;
  return { driver, parent: cgroup.parent, owned: cgroup.owned, leaf: leafName(podId) };
}

/** The cgroups of a pod that are ours to empty and remove: all of it, or in the kubelet's cgroup only what we made there. */
export function ownedCgroups(pod: Pod): readonly string[] {
  const { cgroup } = pod.record;
  if (cgroup.owned) return [cgroup.path];
  const containers = [...pod.containers.keys()].map((id) => containerCgroup(cgroup, id).path);
  return [`${cgroup.path === "/" ? "" : cgroup.path}/${leafName(pod.id)}`, ...containers];
}

/** The leaf in which auraed and the pod's reaper sit, beside the containers'. */
function leafName(podId: string): string {
  return `aurae-${podId.slice(0, 16)}`;
}
