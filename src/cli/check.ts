import { messageOf } from "../lib/coded-error.ts";
import { checkListen, checkRoot, checkSpace } from "./check-daemon.ts";
import { checkCgroups, checkFileSystem, checkLoop, checkUserNamespaces } from "./check-kernel.ts";
import { checkCniConfig, checkCniPlugins } from "./check-network.ts";
import { checkAuraed, vmChecks } from "./check-vm.ts";
import { answered, type Outcome, printable } from "./outcome.ts";
import type { VirtualizationProbe } from "./virtualization-probe.ts";

/** What was found about one thing that pods need. */
export interface Check {
  readonly name: string;
  /** `warn`: pods run, but not all, or not as they could. */
  readonly status: "ok" | "warn" | "failed";
  readonly found: string;
  /** The command, or the setting, that mends it. Absent when all is well. */
  readonly fix?: string;
  /** More of what was seen, several lines: a guest's console. */
  readonly detail?: string;
}

export type CheckResult = Omit<Check, "name">;

/** The parts of the configuration that checks depend on. */
export interface CheckOptions {
  readonly root: string;
  readonly state: string;
  /** Path of the daemon's socket. */
  readonly listen: string;
  readonly cni: { readonly confDir: string; readonly binDirs: readonly string[] };
  readonly auraed: { readonly path: string };
  readonly vm: { readonly accelerator: "auto" | "kvm" | "tcg" | "off" };
  readonly placement: { readonly default: "prefer-vm" | "require-vm" | "flat" };
  readonly cgroup: { readonly driver: "auto" | "cgroupfs" | "systemd" };
}

export interface CheckModules {
  /** Undefined: this build has no microVMs. */
  readonly virtualization: VirtualizationProbe;
  readonly signal: AbortSignal;
}

/** One check before it was made. */
export interface Examination {
  readonly name: string;
  readonly look: () => Promise<CheckResult>;
}

/** What this node can do, and what to do about what it cannot. Needs no daemon, and changes nothing; `full` boots a guest. */
export async function check(
  request: { readonly full: boolean; readonly json: boolean },
  options: CheckOptions,
  modules: CheckModules,
): Promise<Outcome> {
  const examinations: readonly Examination[] = [
    { name: "root", look: async () => checkRoot() },
    { name: "cgroups", look: () => checkCgroups(options.cgroup.driver) },
    { name: "overlayfs", look: () => checkFileSystem("overlay", "containers have no writable layer without it") },
    { name: "erofs", look: () => checkFileSystem("erofs", "images cannot be mounted without it") },
    { name: "loop devices", look: checkLoop },
    { name: "disk space", look: () => checkSpace(options.root) },
    { name: "socket", look: () => checkListen(options.listen) },
    { name: "CNI configuration", look: () => checkCniConfig(options.cni) },
    { name: "CNI plugins", look: () => checkCniPlugins(options.cni) },
    { name: "auraed", look: () => checkAuraed(options.auraed.path, modules.signal) },
    { name: "user namespaces", look: () => checkUserNamespaces(options.auraed.path, options.state) },
    ...vmChecks(request, options, modules),
  ];
  const checks: Check[] = [];
  // One after the other: a trial boot beside anything else would be slower than the daemon's.
  for (const examination of examinations) checks.push(await examine(examination));
  const text = request.json ? `${JSON.stringify({ version: 1, checks }, undefined, 2)}\n` : renderChecks(checks);
  return { ...answered(text), exitCode: checks.some(({ status }) => status === "failed") ? 1 : 0 };
}

/** A check that cannot be made is one that failed. */
async function examine({ name, look }: Examination): Promise<Check> {
  try {
    return { name, ...(await look()) };
  } catch (error) {
    return { name, status: "failed", found: messageOf(error) };
  }
}

export function renderChecks(checks: readonly Check[]): string {
  const count = (status: Check["status"]) => checks.filter((each) => each.status === status).length;
  const lines = checks.flatMap(({ name, status, found, fix, detail }) => [
    `${status.padEnd(7)} ${name.padEnd(18)} ${printable(found)}`,
    ...(fix === undefined ? [] : [`        fix: ${fix}`]),
    ...(detail ?? "").split("\n").flatMap((line) => (line.trim() === "" ? [] : [`        | ${printable(line)}`])),
  ]);
  return `${lines.join("\n")}\n\n${count("ok")} ok, ${count("warn")} to look at, ${count("failed")} failed\n`;
}
