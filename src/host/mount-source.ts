import type { Stats } from "node:fs";
import { realpath, stat } from "node:fs/promises";

import { type Mount, mountOf, readMountinfo } from "./mountinfo.ts";

/** What is at a path of the host, links followed. */
export interface MountSourceFacts {
  /** Absolute, without links. */
  readonly path: string;
  readonly kind: "file" | "directory" | "socket" | "fifo" | "block-device" | "char-device";
  /** As mountinfo names it; "" when no mount is above it. */
  readonly fsType: string;
}

/**
 * In the order of `paths`; undefined for one that is undefined itself, is not there, or cannot be looked at, which whoever mounts it is told
 * then. The mount table is read once.
 */
export async function readMountSources(paths: readonly (string | undefined)[]): Promise<readonly (MountSourceFacts | undefined)[]> {
  if (paths.every((path) => path === undefined)) return paths.map(() => undefined);
  const mounts = await readMountinfo();
  return Promise.all(paths.map((path) => factsOf(path, mounts)));
}

async function factsOf(path: string | undefined, mounts: readonly Mount[]): Promise<MountSourceFacts | undefined> {
  if (path === undefined) return undefined;
  try {
    const resolved = await realpath(path);
    const stats = await stat(resolved);
    return { path: resolved, kind: kindOf(stats), fsType: mountOf(mounts, resolved)?.fsType ?? "" };
  } catch {
    return undefined;
  }
}

function kindOf(stats: Stats): MountSourceFacts["kind"] {
  if (stats.isDirectory()) return "directory";
  if (stats.isSocket()) return "socket";
  if (stats.isFIFO()) return "fifo";
  if (stats.isBlockDevice()) return "block-device";
  return stats.isCharacterDevice() ? "char-device" : "file";
}
