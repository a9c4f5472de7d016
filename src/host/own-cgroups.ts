import { rmdir } from "node:fs/promises";
import { join } from "node:path";

import { detectCgroups } from "./cgroups.ts";

/** Removes the parent of our own pods' cgroups from every hierarchy, cgroup2's on a hybrid host too. One that still holds a pod stays. */
export async function removeOwnCgroups(instanceId: string): Promise<void> {
  const { controllerMounts, unifiedMount } = await detectCgroups();
  const mountPoints = new Set([...controllerMounts.values(), ...(unifiedMount === undefined ? [] : [unifiedMount])]);
  await Promise.all([...mountPoints].map((mountPoint) => rmdir(join(mountPoint, `aurae-${instanceId}`)).catch(() => {})));
}
