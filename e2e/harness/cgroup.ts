import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
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

/** A file of a process's cgroup, under the name that it has in the host's cgroup version. */
export async function cgroupFile(pid: number, controller: string, names: { readonly v1: string; readonly v2: string }): Promise<string> {
  const dir = await cgroupDir(pid, controller);
  return (await readFile(join(dir, existsSync(join(dir, names.v1)) ? names.v1 : names.v2), "utf8")).trim();
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

/** Makes a cgroup in every hierarchy, as the kubelet does for a pod. */
export async function makeCgroup(cgroup: string): Promise<void> {
  for (const hierarchy of existsSync(join(root, "cgroup.procs")) ? [""] : await readdir(root)) {
    if (!existsSync(join(root, hierarchy, "cgroup.procs"))) continue;
    const dir = join(root, hierarchy, cgroup);
    await mkdir(dir, { recursive: true });
    // A v1 cpuset takes no process before it has CPUs and memory.
    for (const name of hierarchy === "cpuset" ? ["cpuset.cpus", "cpuset.mems"] : []) {
      await writeFile(join(dir, name), await readFile(join(root, hierarchy, name)));
    }
  }
}
