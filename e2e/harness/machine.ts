import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

import type { Prefix } from "./prefix.ts";

/** The host's processes behind a pod that is a microVM. */
export interface Machine {
  /** `auraed vm`. */
  readonly auraedPid: number;
  readonly qemuPid: number;
}

/** Finds a pod's processes in /proc, by the pod's directory and by parentage; what is not there is an error. */
export async function machineOf(prefix: Prefix, podId: string): Promise<Machine> {
  const dir = join(prefix.stateDir, "pods", podId.slice(0, 16));
  const auraedPid = await findProcess(`auraed vm of ${dir}`, async (pid) => {
    const args = await argumentsOf(pid);
    return args[1] === "vm" && args.includes(dir);
  });
  const qemuPid = await findProcess(`QEMU below auraed vm, ${auraedPid}`, async (pid) => {
    if ((await statusOf(pid))["PPid"] !== String(auraedPid)) return false;
    return (await argumentsOf(pid))[0]?.includes("qemu-system") ?? false;
  });
  return { auraedPid, qemuPid };
}

/** The lines of /proc/PID/status by name; `task` is a thread. */
export async function statusOf(pid: number, task = pid): Promise<Readonly<Record<string, string>>> {
  const text = await readFile(`/proc/${pid}/task/${task}/status`, "utf8");
  return Object.fromEntries([...text.matchAll(/^(\w+):\t(.*)$/gm)].map(([, name, value]) => [name, value]));
}

export async function argumentsOf(pid: number): Promise<readonly string[]> {
  return (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0");
}

async function findProcess(what: string, matches: (pid: number) => Promise<boolean>): Promise<number> {
  for (const name of await readdir("/proc")) {
    // Most of what is looked at may end meanwhile.
    if (/^\d+$/.test(name) && (await matches(Number(name)).catch(() => false))) return Number(name);
  }
  throw new Error(`no process is ${what}`);
}
