import { readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import type { Leak, Snapshot } from "./leak-check.ts";
import { leaksSince, snapshot } from "./leak-check.ts";
import type { Prefix } from "./prefix.ts";

const options = { signal: new AbortController().signal, directories: [] };

/** The host before a runtime starts. */
export async function hostBefore(): Promise<Snapshot> {
  return await snapshot(options);
}

/**
 * What a drained and stopped runtime left on the host and in its directories. Not counted: what the harness itself removes later (bridge,
 * cgroup parent), what the reference never removes (its cgroup parent), and what the rest of the host does meanwhile (sessions, services).
 */
export async function leaksOf(prefix: Prefix, before: Snapshot): Promise<readonly string[]> {
  const deadlineMs = Date.now() + 5000;
  for (;;) {
    const found = await attributable(prefix, await leaksSince(before, { ...options, settleMs: 0 }));
    const leaks = [...found.map(({ kind, what }) => `${kind}: ${what}`), ...(await leftInDirectories(prefix))];
    if (leaks.length === 0 || Date.now() > deadlineMs) return leaks;
  }
}

async function attributable(prefix: Prefix, leaks: readonly Leak[]): Promise<readonly Leak[]> {
  const kept: Leak[] = [];
  for (const leak of leaks) if (await isOfRuntime(prefix, leak)) kept.push(leak);
  return kept;
}

async function isOfRuntime(prefix: Prefix, { kind, what }: Leak): Promise<boolean> {
  switch (kind) {
    case "link":
      return !what.startsWith(`${prefix.network.bridge} `);
    case "cgroup":
      return !what.endsWith(prefix.cgroupParent) && !/\/(?:k8s\.io|[^/]+\.slice)(?:$|\/[^/]+\.(?:scope|service|slice))/.test(what);
    case "process":
      return what.includes(`${prefix.dir}/`) || (await hasOwnMounts(what.split(" ", 1)[0] ?? ""));
    case "netns":
    case "mount":
    case "loop":
    case "directory":
    case "file":
      return true;
  }
}

/** Every container, and nothing of an ordinary session, has a mount namespace of its own. */
async function hasOwnMounts(pid: string): Promise<boolean> {
  try {
    if ((await readFile(`/proc/${pid}/stat`, "utf8")).includes(") Z ")) return false;
    return (await readlink(`/proc/${pid}/ns/mnt`)) !== (await readlink("/proc/self/ns/mnt"));
  } catch {
    return false;
  }
}

/** Pods, bundles and leases that the directories of the prefix still hold. */
async function leftInDirectories(prefix: Prefix): Promise<readonly string[]> {
  const left: string[] = [];
  for (const dir of [join(prefix.stateDir, "pods"), join(prefix.rootDir, "pods"), join(prefix.dir, "bundles")]) {
    for (const name of await readdir(dir).catch(() => [])) left.push(`directory: ${join(dir, name)}`);
  }
  for (const address of await leases(prefix)) left.push(`lease: ${address}`);
  return left;
}

/** Addresses that the CNI address manager has leased to pods of the prefix. */
export async function leases(prefix: Prefix): Promise<string[]> {
  const names = await readdir(join(prefix.dir, "ipam", prefix.network.bridge)).catch(() => []);
  return names.filter((name) => /^\d+\.\d+\.\d+\.\d+$/.test(name));
}
