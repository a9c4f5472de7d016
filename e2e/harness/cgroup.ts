import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

const root = "/sys/fs/cgroup";

/** The directory of the cgroup that a process of the host is in, for a v1 controller; on v2 there is one for all. */
export async function cgroupDir(pid: number, controller: string): Promise<string> {
  const lines = (await readFile(`/proc/${pid}/cgroup`, "utf8")).trim().split("\n");
  for (const line of lines) {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (path !== undefined && controllers?.split(",").includes(controller)) return join(root, controller, path);
  }
  const unified = lines.find((line) => line.startsWith("0::"))?.slice(3);
  if (unified === undefined) throw new Error(`process ${pid} is in no cgroup of '${controller}'`);
  return join(root, unified);
}

/** The memory limit that the kernel holds for a process's cgroup. */
export async function cgroupMemoryLimit(pid: number): Promise<bigint> {
  const dir = await cgroupDir(pid, "memory");
  return BigInt((await readFile(join(dir, existsSync(join(dir, "memory.max")) ? "memory.max" : "memory.limit_in_bytes"), "utf8")).trim());
}

/** CPU shares as v1 counts them, or the weight on v2. */
export async function cgroupCpuShares(pid: number): Promise<bigint> {
  const dir = await cgroupDir(pid, "cpu");
  return BigInt((await readFile(join(dir, existsSync(join(dir, "cpu.weight")) ? "cpu.weight" : "cpu.shares"), "utf8")).trim());
}

/** The directories that a cgroup and what is below it have in all hierarchies, the deepest first. */
export async function cgroupDirs(cgroup: string): Promise<string[]> {
  const found = new Set<string>();
  for (const hierarchy of ["", ...(await readdir(root))]) {
    const dir = join(root, hierarchy, cgroup);
    if (!existsSync(join(dir, "cgroup.procs"))) continue;
    const below = await readdir(dir, { recursive: true, withFileTypes: true });
    for (const entry of below) if (entry.isDirectory()) found.add(join(entry.parentPath, entry.name));
    found.add(dir);
  }
  return [...found].sort((left, right) => right.length - left.length);
}
