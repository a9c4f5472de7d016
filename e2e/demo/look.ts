import { readFile, readlink } from "node:fs/promises";
import { basename } from "node:path";

import type { Node } from "../harness/node.ts";

export interface SeenProcess {
  readonly pid: number;
  readonly name: string;
}

/** What is really there while the pod runs, read from the host's /proc. */
export interface Sight {
  readonly daemon: SeenProcess;
  /** The container's ancestors below the host's first process, the eldest first. */
  readonly ancestors: readonly SeenProcess[];
  readonly container: SeenProcess;
  /** Namespaces that are not the host's: `net` to its inode. */
  readonly namespaces: Readonly<Record<string, string>>;
  readonly cgroup: string;
  readonly rootMount: string;
  readonly layerCount: number;
  readonly ip: string;
  readonly bridge: string;
  readonly podId: string;
  readonly containerId: string;
}

export async function lookAt(
  node: Node,
  pod: { readonly podId: string; readonly containerId: string; readonly ip: string },
): Promise<Sight> {
  const { info } = await node.crictl.json<{ info: { pid?: number } }>("inspect", "-o", "json", pod.containerId);
  const pid = Number(info.pid);
  const root = await rootMount(pid);
  return {
    ...pod,
    daemon: await processOf(node.daemon.process.pid ?? 0),
    ancestors: await ancestorsOf(pid),
    container: await processOf(pid),
    namespaces: await ownNamespaces(pid),
    cgroup: await cgroupOf(pid),
    rootMount: root.type,
    layerCount: root.lowerCount,
    bridge: node.prefix.network.bridge,
  };
}

async function processOf(pid: number): Promise<SeenProcess> {
  const words = (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0").filter((word) => word !== "");
  const name = words.slice(0, 2).map((word, index) => (index === 0 ? basename(word) : word.split("\n", 1)[0]?.slice(0, 40)));
  return { pid, name: name.join(" ") };
}

async function ancestorsOf(pid: number): Promise<SeenProcess[]> {
  const parent = Number(/^PPid:\t(\d+)$/m.exec(await readFile(`/proc/${pid}/status`, "utf8"))?.[1]);
  if (parent <= 1 || parent === process.pid) return [];
  return [...(await ancestorsOf(parent)), await processOf(parent)];
}

async function ownNamespaces(pid: number): Promise<Record<string, string>> {
  const own: Record<string, string> = {};
  for (const name of ["net", "ipc", "uts", "pid", "mnt", "user", "cgroup"]) {
    const [theirs, ours] = [await readlink(`/proc/${pid}/ns/${name}`), await readlink(`/proc/self/ns/${name}`)];
    if (theirs !== ours) own[name] = /\d+/.exec(theirs)?.[0] ?? theirs;
  }
  return own;
}

async function cgroupOf(pid: number): Promise<string> {
  const lines = (await readFile(`/proc/${pid}/cgroup`, "utf8")).trim().split("\n");
  const line = lines.find((candidate) => candidate.includes(":memory:")) ?? lines.at(-1) ?? "";
  return line.split(":").slice(2).join(":");
}

async function rootMount(pid: number): Promise<{ readonly type: string; readonly lowerCount: number }> {
  const lines = (await readFile(`/proc/${pid}/mountinfo`, "utf8")).split("\n");
  const line = lines.findLast((candidate) => candidate.split(" ")[4] === "/") ?? "";
  const [, after = ""] = line.split(" - ");
  const lower = /lowerdir=([^, ]+)/.exec(after)?.[1] ?? "";
  const plus = [...after.matchAll(/lowerdir\+=/g)].length;
  return { type: after.split(" ")[0] ?? "", lowerCount: plus > 0 ? plus : lower.split(":").filter((part) => part !== "").length };
}
