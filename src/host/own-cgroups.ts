import { rmdir } from "node:fs/promises";

import { cgroupDirectory, detectCgroups } from "./cgroups.ts";

/** Removes the parent of our own pods' cgroups from every hierarchy. One that still holds a pod stays. */
export async function removeOwnCgroups(instanceId: string): Promise<void> {
  const layout = await detectCgroups();
  const controllers = layout.version === "v2" ? [""] : [...layout.controllerMounts.keys()];
  const directories = controllers.map((controller) => cgroupDirectory(layout, controller, `/aurae-${instanceId}`));
  const unique = new Set(directories.filter((directory) => directory !== undefined));
  await Promise.all([...unique].map((directory) => rmdir(directory).catch(() => {})));
}
