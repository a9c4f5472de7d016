import { lstat, readdir, realpath, stat } from "node:fs/promises";
import { join } from "node:path";

/** A device node as it is to appear in a container. */
export interface DeviceNode {
  readonly containerPath: string;
  readonly type: "b" | "c";
  readonly major: number;
  readonly minor: number;
  /** Permission bits. */
  readonly fileMode: number;
  readonly uid: number;
  readonly gid: number;
  /** What the device cgroup allows: some of r, w and m. */
  readonly permissions: string;
}

/** Below /dev, what a container has of its own. */
const OWN_DIRECTORIES = new Set(["pts", "shm", "mqueue", "fd", "hugepages"]);
const OWN_NODES = new Set(["console"]);

export interface DeviceRequest {
  readonly hostPath: string;
  readonly containerPath: string;
  /** Some of r, w and m. */
  readonly permissions: string;
}

/** The node at `hostPath`, links followed; a directory stands for every node below it. Throws for what is neither. */
export async function readDevice({ hostPath, containerPath, permissions }: DeviceRequest): Promise<readonly DeviceNode[]> {
  const path = await realpath(hostPath);
  const stats = await stat(path);
  if (stats.isDirectory()) {
    const nodes = await listDevices(path);
    return nodes.map((node) => ({ ...node, containerPath: join(containerPath, node.containerPath.slice(path.length)), permissions }));
  }
  if (!stats.isBlockDevice() && !stats.isCharacterDevice()) throw new Error(`${hostPath} is not a device node`);
  return [toNode(stats, containerPath, permissions)];
}

/** Every device node below a directory; links are left out, so that each node appears once. */
export async function listDevices(directory: string): Promise<readonly DeviceNode[]> {
  const entries = await readdir(directory, { withFileTypes: true });
  const nodes = await Promise.all(
    entries.map(async (entry): Promise<readonly DeviceNode[]> => {
      const path = join(directory, entry.name);
      if (entry.isDirectory()) return OWN_DIRECTORIES.has(entry.name) ? [] : listDevices(path);
      if ((!entry.isBlockDevice() && !entry.isCharacterDevice()) || OWN_NODES.has(entry.name)) return [];
      return [toNode(await lstat(path), path, "rwm")];
    }),
  );
  return nodes.flat();
}

interface Stats {
  readonly rdev: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  isBlockDevice(): boolean;
}

/** Source of the layout of a device number: makedev(3). */
function toNode(stats: Stats, containerPath: string, permissions: string): DeviceNode {
  const number = BigInt(stats.rdev);
  return {
    containerPath,
    type: stats.isBlockDevice() ? "b" : "c",
    major: Number(((number >> 8n) & 0xfffn) | ((number >> 32n) & ~0xfffn)),
    minor: Number((number & 0xffn) | ((number >> 12n) & ~0xffn)),
    fileMode: stats.mode & 0o7777,
    uid: stats.uid,
    gid: stats.gid,
    permissions,
  };
}
