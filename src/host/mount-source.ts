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

/** In the order of `paths`; undefined for one that is not there. The mount table is read once. */
export async function readMountSources(paths: readonly string[]): Promise<readonly (MountSourceFacts | undefined)[]> {
  if (paths.length === 0) return [];
  const mounts = await readMountinfo();
  return Promise.all(paths.map((path) => factsOf(path, mounts)));
}

async function factsOf(path: string, mounts: readonly Mount[]): Promise<MountSourceFacts | undefined> {
  try {
    const resolved = await realpath(path);
    const stats = await stat(resolved);
    return { path: resolved, kind: kindOf(stats), fsType: mountOf(mounts, resolved)?.fsType ?? "" };
  } catch (error) {
    if (error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR")) return undefined;
    throw error;
  }
}

function kindOf(stats: Stats): MountSourceFacts["kind"] {
  if (stats.isDirectory()) return "directory";
  if (stats.isSocket()) return "socket";
  if (stats.isFIFO()) return "fifo";
  if (stats.isBlockDevice()) return "block-device";
  return stats.isCharacterDevice() ? "char-device" : "file";
}
