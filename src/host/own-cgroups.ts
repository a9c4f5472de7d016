import { rmdir } from "node:fs/promises";
import { join } from "node:path";

import { ownSlices } from "./cgroup-paths.ts";
import type { CgroupDriver } from "./cgroups.ts";
import { detectCgroups } from "./cgroups.ts";
import { run } from "./process.ts";

const STOP_TIMEOUT_MS = 10_000;

/** Removes the parent of our own pods' cgroups from every hierarchy, cgroup2's on a hybrid host too. One that still holds a pod stays. */
export async function removeOwnCgroups(instanceId: string, driver: CgroupDriver): Promise<void> {
  const { controllerMounts, unifiedMount } = await detectCgroups();
  if (driver === "systemd" && unifiedMount !== undefined) await stopOwnSlices(unifiedMount, instanceId);
  const mountPoints = new Set([...controllerMounts.values(), ...(unifiedMount === undefined ? [] : [unifiedMount])]);
  await Promise.all([...mountPoints].map((mountPoint) => rmdir(join(mountPoint, `aurae-${instanceId}`)).catch(() => {})));
}

/** A slice that is only removed stays active, and systemd would not make its cgroup again. */
async function stopOwnSlices(mountPoint: string, instanceId: string): Promise<void> {
  for (const { path, slice } of ownSlices(instanceId)) {
    const removed = await rmdir(join(mountPoint, path)).then(
      () => true,
      () => false,
    );
    if (!removed) return;
    const command = { file: "systemctl", args: ["--quiet", "stop", slice], env: { PATH: "/usr/bin:/bin" } };
    await run(command, { signal: AbortSignal.timeout(STOP_TIMEOUT_MS) }).catch(() => {});
  }
}
