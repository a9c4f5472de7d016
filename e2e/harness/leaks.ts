import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { mustRun } from "./command.ts";
import type { Leak, Snapshot } from "./leak-check.ts";
import { compare, snapshot } from "./leak-check.ts";
import type { Prefix } from "./prefix.ts";
import { harnessCgroups } from "./prefix.ts";
import { hostIsShared, slowness } from "./settings.ts";
import { processesOf } from "./sweep.ts";

const settleMs = 5000 * slowness();
const options = { signal: new AbortController().signal, directories: [] };

/** The host before a runtime starts. */
export async function hostBefore(): Promise<Snapshot> {
  return await snapshot(options);
}

/**
 * What a drained and stopped runtime left on the host and in its directories, after some time for the kernel to tidy up. Not counted: what the
 * harness removes later (bridge, cgroup parent), the cgroup parent that the reference never removes, and what sessions and services do meanwhile.
 */
export async function leaksOf(
  prefix: Prefix,
  before: Snapshot,
  { daemonPid }: { /** Of one that still runs, which is no leak. */ readonly daemonPid?: number | undefined } = {},
): Promise<readonly string[]> {
  const deadlineMs = Date.now() + settleMs;
  for (;;) {
    const leaks = [...(await leftOnHost(prefix, before)), ...(await leftByMark(prefix, daemonPid))];
    if (leaks.length === 0 || Date.now() > deadlineMs) return leaks;
    await sleep(100);
  }
}

async function leftOnHost(prefix: Prefix, before: Snapshot): Promise<string[]> {
  const marks = await marksOf(prefix);
  return compare(before, await snapshot(options))
    .filter((leak) => isOfRuntime(prefix, leak))
    .map(({ kind, what }) => `${kind}: ${what}`)
    .filter((leak) => !hostIsShared() || marks.some((mark) => leak.includes(mark)));
}

/** Processes and their namespaces are known by their mark alone: see `leftByMark`. */
function isOfRuntime(prefix: Prefix, { kind, what }: Leak): boolean {
  switch (kind) {
    case "process":
      return false;
    case "netns":
      return what.startsWith("pinned ");
    case "link":
      return !what.startsWith(`${prefix.network.bridge} `);
    case "cgroup":
      return !harnessCgroups(prefix).some((cgroup) => what.endsWith(cgroup)) && !isOfOthers(what);
    case "mount":
    case "loop":
    case "directory":
    case "file":
      return true;
  }
}

/** The reference's parent of all pods, and what sessions and services of the host come and go in. */
function isOfOthers(cgroup: string): boolean {
  return cgroup.endsWith("/k8s.io") || /\/(?:user|system|init)\.(?:slice|scope)(?:\/|$)/.test(cgroup);
}

/** Strings that the names of everything made for the prefix contain: its path, its bridge, the daemon's instance id. */
async function marksOf(prefix: Prefix): Promise<string[]> {
  const instanceId = await readFile(join(prefix.rootDir, "instance-id"), "utf8").catch(() => "");
  return [`${prefix.dir}/`, prefix.network.bridge, instanceId.trim()].filter((mark) => mark !== "");
}

/** Processes, pods, bundles, leases and interfaces that belong to the prefix without doubt. */
async function leftByMark(prefix: Prefix, daemonPid: number | undefined): Promise<string[]> {
  const left: string[] = [];
  for (const pid of await processesOf(prefix)) if (pid !== daemonPid) left.push(`process: ${pid} ${await commandLineOf(pid)}`);
  for (const dir of [join(prefix.stateDir, "pods"), join(prefix.rootDir, "pods"), join(prefix.dir, "bundles")]) {
    for (const name of await readdir(dir).catch(() => [])) left.push(`directory: ${join(dir, name)}`);
  }
  for (const address of await leases(prefix)) left.push(`lease: ${address}`);
  for (const link of await portsOf(prefix.network.bridge)) left.push(`link: ${link} on ${prefix.network.bridge}`);
  return left;
}

async function commandLineOf(pid: number): Promise<string> {
  const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  return commandLine.replaceAll("\0", " ").slice(0, 200);
}

async function portsOf(bridge: string): Promise<string[]> {
  const links = JSON.parse((await mustRun("ip", ["-json", "link", "show"])) || "[]") as readonly {
    readonly ifname: string;
    readonly master?: string;
  }[];
  return links.filter((link) => link.master === bridge).map((link) => link.ifname);
}

/** Addresses that the CNI address manager has leased to pods of the prefix. */
export async function leases(prefix: Prefix): Promise<string[]> {
  const names = await readdir(join(prefix.dir, "ipam", prefix.network.bridge)).catch(() => []);
  return names.filter((name) => /^\d+\.\d+\.\d+\.\d+$/.test(name));
}
