import { readdir, readFile, readlink, rmdir } from "node:fs/promises";

import { cgroupDirs } from "./cgroup.ts";
import { runCommand } from "./command.ts";
import { type Prefix, prefixStart } from "./prefix.ts";
import { waitFor } from "./wait.ts";

/**
 * Takes down what a prefix may still hold after its daemon ended: the last resort of a failed test, so that the next one starts clean. A test
 * that needs it has failed in the leak check before.
 */
export async function sweepPrefix(prefix: Prefix): Promise<void> {
  await endProcesses(prefix);
  for (const mountpoint of (await mountsBelow(prefix.dir)).reverse()) await runCommand("umount", ["-l", mountpoint]);
  await removeCgroups(prefix.cgroupParent);
  // CNI never removes its bridge.
  await runCommand("ip", ["link", "delete", prefix.network.bridge]);
}

async function endProcesses(prefix: Prefix): Promise<void> {
  const pids = await processesOf(prefix);
  for (const pid of pids) kill(pid);
  if (pids.length === 0) return;
  await waitFor("the processes of the prefix to end", async () => (await processesOf(prefix)).length === 0, { timeoutMs: 5000 });
}

/** Processes that name the prefix in their command line, or that live in a mount namespace of their own which holds its file systems. */
export async function processesOf(prefix: Prefix): Promise<number[]> {
  const ownNamespace = await readlink("/proc/self/ns/mnt");
  const found: number[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    if (await belongsTo(prefix, name, ownNamespace).catch(() => false)) found.push(Number(name));
  }
  return found;
}

async function belongsTo(prefix: Prefix, pid: string, ownNamespace: string): Promise<boolean> {
  if ((await readFile(`/proc/${pid}/stat`, "utf8")).includes(") Z ")) return false;
  const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8");
  if (commandLine.includes(`${prefix.dir}/`)) return true;
  // Of a test beside this one: its mount namespace began as a copy of everybody's.
  if (commandLine.includes(prefixStart)) return false;
  if ((await readlink(`/proc/${pid}/ns/mnt`)) === ownNamespace) return false;
  return (await readFile(`/proc/${pid}/mountinfo`, "utf8")).includes(`${prefix.dir}/`);
}

/** Removes the cgroup that stands for the kubelet's, in every hierarchy. */
async function removeCgroups(cgroup: string): Promise<void> {
  for (const dir of await cgroupDirs(cgroup)) await rmdir(dir);
}

/** Mount points below `dir`, in the order they were made. */
export async function mountsBelow(dir: string): Promise<string[]> {
  const lines = (await readFile("/proc/self/mountinfo", "utf8")).split("\n");
  return lines.map((line) => line.split(" ")[4] ?? "").filter((mountpoint) => mountpoint.startsWith(`${dir}/`));
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // Gone in the meantime.
  }
}
