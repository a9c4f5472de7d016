import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { mustRun } from "./command.ts";

/**
 * What a runtime can leave behind on a host, seen from outside: nothing is filtered but kernel threads, which come and go as the
 * kernel likes. A test takes a snapshot before, another after, and compares.
 */
export const leakKinds = ["netns", "mount", "cgroup", "process", "link", "loop", "directory", "file"] as const;

export type LeakKind = (typeof leakKinds)[number];

export interface Leak {
  readonly kind: LeakKind;
  /** Names the thing so that a person finds it: a path, `pid … args`, an interface. */
  readonly what: string;
}

export type Snapshot = Readonly<Record<LeakKind, ReadonlySet<string>>>;

export interface SnapshotOptions {
  readonly signal: AbortSignal;
  /** Trees whose directories and files count, down to mount points. A missing one is empty. */
  readonly directories: readonly string[];
}

export async function snapshot(options: SnapshotOptions): Promise<Snapshot> {
  const mounts = readMounts();
  const trees = options.directories.flatMap((directory) => walk(directory));
  return {
    netns: new Set([...pinnedNetworkNamespaces(mounts), ...networkNamespacesOfProcesses()]),
    mount: new Set(numbered(mounts.map(({ mountPoint, fsType, source, root }) => `${mountPoint} (${fsType} ${source} ${root})`))),
    cgroup: pathsOf(
      cgroupMounts(mounts).flatMap((mountPoint) => walk(mountPoint)),
      "directory",
    ),
    process: new Set(processes()),
    link: new Set(await links(options.signal)),
    loop: new Set(loopDevices()),
    directory: pathsOf(trees, "directory"),
    file: pathsOf(trees, "file"),
  };
}

/** What `after` has and `before` had not. */
export function compare(before: Snapshot, after: Snapshot): readonly Leak[] {
  return leakKinds.flatMap((kind) => [...after[kind].difference(before[kind])].sort().map((what) => ({ kind, what })));
}

/**
 * The leaks that are left when things have settled: the kernel takes interfaces and namespaces down some time after their last user.
 * Returns as soon as there are none, else what there is after `settleMs`.
 */
export async function leaksSince(before: Snapshot, options: SnapshotOptions & { readonly settleMs: number }): Promise<readonly Leak[]> {
  const deadlineMs = Date.now() + options.settleMs;
  for (;;) {
    const leaks = compare(before, await snapshot(options));
    if (leaks.length === 0 || Date.now() >= deadlineMs) return leaks;
    await sleep(100, undefined, { signal: options.signal });
  }
}

export function formatLeaks(leaks: readonly Leak[]): string {
  return leaks.map(({ kind, what }) => `${kind}: ${what}`).join("\n");
}

interface Mount {
  readonly root: string;
  readonly mountPoint: string;
  readonly fsType: string;
  readonly source: string;
}

function readMounts(): readonly Mount[] {
  const lines = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  return lines.flatMap((line) => {
    const [before = "", after = ""] = line.split(" - ");
    const [, , , root, mountPoint] = before.split(" ").map(unescape);
    const [fsType = "", source = ""] = after.split(" ").map(unescape);
    return root === undefined || mountPoint === undefined ? [] : [{ root, mountPoint, fsType, source }];
  });
}

/** mountinfo writes blanks and the like as octal. */
function unescape(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_match, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** nsfs mounts wherever they are, and the files of `ip netns`, which may have lost their mount. */
function pinnedNetworkNamespaces(mounts: readonly Mount[]): readonly string[] {
  const pinned = mounts.filter(({ fsType, root }) => fsType === "nsfs" && root.startsWith("net:"));
  const named = namesIn("/run/netns").map((name) => join("/run/netns", name));
  return [...new Set([...pinned.map(({ mountPoint }) => mountPoint), ...named])].map((path) => `pinned at ${path}`);
}

function networkNamespacesOfProcesses(): readonly string[] {
  const namespaces = pids().map((pid) => valueOr(() => readlinkSync(`/proc/${pid}/ns/net`), ""));
  return [...new Set(namespaces)].filter((namespace) => namespace !== "").map((namespace) => `${namespace} of a process`);
}

function cgroupMounts(mounts: readonly Mount[]): readonly string[] {
  return mounts.filter(({ fsType }) => fsType === "cgroup" || fsType === "cgroup2").map(({ mountPoint }) => mountPoint);
}

const KTHREADD = "2";

function processes(): readonly string[] {
  return pids().flatMap((pid) => {
    const stat = valueOr(() => readFileSync(`/proc/${pid}/stat`, "utf8"), "");
    // The command in parentheses may hold anything, so the fields are counted from its end: state, parent, … start time.
    const command = stat.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")"));
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (stat === "" || String(pid) === KTHREADD || fields[1] === KTHREADD) return [];
    const args = valueOr(() => readFileSync(`/proc/${pid}/cmdline`, "utf8"), "")
      .split("\0")
      .join(" ")
      .trim();
    return [`${pid} started ${fields[19]}: ${args === "" ? `[${command}] ${fields[0]}` : args}`];
  });
}

async function links(signal: AbortSignal): Promise<readonly string[]> {
  const output = await mustRun("ip", ["-json", "-details", "link"], { signal });
  const parsed = JSON.parse(output) as readonly { readonly ifname: string; readonly linkinfo?: { readonly info_kind?: string } }[];
  return parsed.map(({ ifname, linkinfo }) => `${ifname} (${linkinfo?.info_kind ?? "device"})`);
}

function loopDevices(): readonly string[] {
  return namesIn("/sys/block").flatMap((name) => {
    const file = valueOr(() => readFileSync(`/sys/block/${name}/loop/backing_file`, "utf8").trim(), undefined);
    return file === undefined ? [] : [`/dev/${name} of ${file}`];
  });
}

interface Entry {
  readonly kind: "directory" | "file";
  readonly path: string;
}

/** The tree below a directory, itself included, without what is mounted on it: mounts are counted as such. */
function walk(top: string): readonly Entry[] {
  const device = deviceOf(top);
  if (device === undefined) return [];
  const found: Entry[] = [];
  const pending = [top];
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    const directory = path;
    found.push({ kind: "directory", path: directory });
    for (const entry of valueOr(() => readdirSync(directory, { withFileTypes: true }), [])) {
      const child = join(directory, entry.name);
      if (!entry.isDirectory()) found.push({ kind: "file", path: child });
      else if (deviceOf(child) === device) pending.push(child);
    }
  }
  return found;
}

function deviceOf(path: string): number | undefined {
  return valueOr(() => lstatSync(path).dev, undefined);
}

function pathsOf(entries: readonly Entry[], kind: Entry["kind"]): ReadonlySet<string> {
  return new Set(entries.filter((entry) => entry.kind === kind).map(({ path }) => path));
}

function pids(): readonly number[] {
  return namesIn("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

function namesIn(directory: string): readonly string[] {
  return valueOr(() => readdirSync(directory), []);
}

/** Equal lines get a number, so that a second mount on the same place counts. */
function numbered(lines: readonly string[]): readonly string[] {
  const seen = new Map<string, number>();
  return lines.map((line) => {
    const count = (seen.get(line) ?? 0) + 1;
    seen.set(line, count);
    return count === 1 ? line : `${line} #${count}`;
  });
}

/** Most of what is looked at may vanish between two looks. */
function valueOr<T, Fallback>(read: () => T, fallback: Fallback): T | Fallback {
  try {
    return read();
  } catch {
    return fallback;
  }
}
