import { mkdir, realpath, stat } from "node:fs/promises";

import { mountOf, readMountinfo } from "../host/mountinfo.ts";
import { messageOf } from "../lib/coded-error.ts";
import type { ContainerConfig, MountRequest } from "./container-config.ts";
import { invalid } from "./errors.ts";

/** The host's path of each mount of a container, links followed, checked for what the mount asks of it; undefined for an image. */
export async function hostMountSources({ mounts }: ContainerConfig): Promise<readonly (string | undefined)[]> {
  const sources = await Promise.all(mounts.map(mountSource));
  if (mounts.some(({ propagation }) => propagation !== "private")) await checkPropagation(mounts, sources);
  return sources;
}

/** Those of the paths below which something else is mounted. */
export async function withMountsBelow(paths: readonly string[]): Promise<ReadonlySet<string>> {
  if (paths.length === 0) return new Set();
  const table = await readMountinfo();
  return new Set(paths.filter((path) => table.some(({ mountPoint }) => mountPoint.startsWith(path === "/" ? path : `${path}/`))));
}

/** A mount passes on only what the host's mount above its source shares: without that the request would be met in word alone. */
async function checkPropagation(mounts: readonly MountRequest[], sources: readonly (string | undefined)[]): Promise<void> {
  const table = await readMountinfo();
  for (const [index, { propagation }] of mounts.entries()) {
    if (propagation === "private") continue;
    const source = sources[index] ?? "";
    const above = mountOf(table, source);
    const shared = above?.propagation.some((tag) => tag.startsWith("shared:")) ?? false;
    const slave = above?.propagation.some((tag) => tag.startsWith("master:")) ?? false;
    if (shared || (slave && propagation === "host-to-container")) continue;
    const remedy = `make it shared with 'mount --make-rshared ${above?.mountPoint ?? source}'`;
    throw invalid(
      `config.mounts[${index}].propagation`,
      `${source} lies on a private mount of this node, which propagates nothing: ${remedy}`,
    );
  }
}

/** Links in a host path are the node's own; a missing path becomes a directory, as with every other runtime. */
async function mountSource(mount: MountRequest, index: number): Promise<string | undefined> {
  const field = `config.mounts[${index}]`;
  const { source } = mount;
  if (source.type === "image") return undefined;
  try {
    await stat(source.path);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw invalid(`${field}.host_path`, messageOf(error));
    await mkdir(source.path, { recursive: true, mode: 0o755 });
  }
  return realpath(source.path);
}
