import { readdir, readFile } from "node:fs/promises";

import { type CgroupLayout, cgroupDirectory, detectCgroups } from "./cgroups.ts";
import { probeHost } from "./features.ts";

const LOWEST_OOM_SCORE_ADJ = -1000;

/** What of this kernel decides how a container's OCI spec is written. Read once at start. */
export async function readHostFacts() {
  const [layout, features, status, score] = await Promise.all([
    detectCgroups(),
    probeHost(),
    readFile("/proc/self/status", "utf8"),
    readFile("/proc/self/oom_score_adj", "utf8"),
  ]);
  return {
    arch: process.arch,
    cgroupVersion: layout.version === "v2" ? 2 : 1,
    swapAccounting: await hasSwapAccounting(layout),
    hugepageSizes: await hugepageSizes(layout),
    seccomp: features.seccomp,
    // No profile is loaded for the runtime's default: confinement by AppArmor is the operator's, by name.
    apparmor: features.appArmor ? { defaultProfile: "" } : undefined,
    /** The bounding set as a bit mask: no container can have more. */
    capabilityMask: BigInt(`0x${/^CapBnd:\t([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`),
    oomScoreAdjFloor: features.sysResource ? LOWEST_OOM_SCORE_ADJ : Number(score.trim()),
    rlimits: [],
  } as const;
}

async function hasSwapAccounting(layout: CgroupLayout): Promise<boolean> {
  const directory = cgroupDirectory(layout, "memory", "/");
  if (directory === undefined) return false;
  // The root of a v2 tree has no limits; any first-level group has the file or none has.
  if (layout.version === "v2") return (await readdir("/sys/kernel/mm")).includes("swap");
  return (await readdir(directory)).includes("memory.memsw.limit_in_bytes");
}

/** As the kernel spells them, `2MB`; empty without the hugetlb controller. */
async function hugepageSizes(layout: CgroupLayout): Promise<readonly string[]> {
  if (!layout.controllers.includes("hugetlb")) return [];
  const names = await readdir("/sys/kernel/mm/hugepages").catch(() => []);
  return names
    .map((name) => Number(/(\d+)kB$/.exec(name)?.[1] ?? 0))
    .map((sizeKb) => (sizeKb >= 1 << 20 ? `${sizeKb >> 20}GB` : `${sizeKb >> 10}MB`));
}
