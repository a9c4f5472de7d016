import { randomBytes } from "node:crypto";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../host/process.ts";
import type { NetworkRequest } from "../runtime/ports.ts";
import type { NetworkOptions } from "./options.ts";

/** Where Debian's containernetworking-plugins puts them. */
export const PLUGIN_DIR = "/usr/lib/cni";

const SYSTEM_ENV = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" };

/** Runs a program for a test; a non-zero exit is an error with its stderr. */
export async function sh(file: string, ...args: readonly string[]): Promise<string> {
  const result = await run({ file, args, env: SYSTEM_ENV }, { signal: new AbortController().signal, timeoutMs: 20_000 });
  if (result.exitCode !== 0) throw new Error(`${file} ${args.join(" ")}: exit ${result.exitCode}: ${result.stderr}`);
  return result.stdout;
}

/**
 * Removes the NAT rules that name a network, and the chains they jump to. For tests that make DEL impossible: the plugins keep their
 * masquerade rule when the namespace vanished before DEL.
 */
export async function removeNatRules(network: string): Promise<void> {
  for (const family of ["iptables", "ip6tables"]) {
    const rules = (await sh(`${family}-save`, "-t", "nat")).split("\n").filter((line) => line.includes(`name: \\"${network}\\"`));
    const jumps = rules.filter((line) => !line.startsWith("-A CNI-") || line.startsWith("-A CNI-HOSTPORT-"));
    const chains = jumps.map((line) => / -j (\S+)$/.exec(line)?.[1]).filter((chain) => chain?.startsWith("CNI-"));
    const text = [
      "*nat",
      ...jumps.map((line) => line.replace(/^-A/, "-D")),
      ...chains.flatMap((chain) => [`-F ${chain}`, `-X ${chain}`]),
      "COMMIT",
      "",
    ];
    if (jumps.length > 0) await feed(`${family}-restore`, ["--noflush"], text.join("\n"));
  }
}

async function feed(file: string, args: readonly string[], stdin: string): Promise<void> {
  const result = await run({ file, args, stdin, env: SYSTEM_ENV }, { signal: new AbortController().signal, timeoutMs: 20_000 });
  if (result.exitCode !== 0) throw new Error(`${file}: exit ${result.exitCode}: ${result.stderr}`);
}

/** Directories for one network room, and everything made in the host's network for it. Disposing removes the lot. */
export interface TestBed extends AsyncDisposable {
  readonly directory: string;
  readonly options: NetworkOptions;
  /** Short and unique: fits an interface name. */
  readonly tag: string;
  writeConfig(name: string, config: unknown): Promise<void>;
  /** A network namespace with its loopback up; its path. */
  addNamespace(name: string): Promise<string>;
  removeNamespace(name: string): Promise<void>;
  defer(undo: () => Promise<unknown>): void;
}

export async function createTestBed(options: Partial<NetworkOptions> = {}): Promise<TestBed> {
  await using stack = new AsyncDisposableStack();
  const tag = randomBytes(3).toString("hex");
  const directory = await mkdtemp(join(tmpdir(), "aurae-netns-"));
  stack.defer(() => rm(directory, { recursive: true }));
  const confDir = join(directory, "net.d");
  await mkdir(confDir);
  const namespaces = new Set<string>();
  stack.defer(async () => {
    for (const name of namespaces) await sh("ip", "netns", "del", name);
  });
  const owned = stack.move();
  return {
    directory,
    tag,
    options: { confDir, binDirs: [PLUGIN_DIR], stateDir: join(directory, "network"), instanceId: tag, pollIntervalMs: 50, ...options },
    writeConfig: (name, config) => writeFile(join(confDir, name), typeof config === "string" ? config : JSON.stringify(config)),
    async addNamespace(name) {
      const fullName = `aurae-${tag}-${name}`;
      await sh("ip", "netns", "add", fullName);
      namespaces.add(fullName);
      await sh("ip", "-n", fullName, "link", "set", "lo", "up");
      return `/run/netns/${fullName}`;
    },
    async removeNamespace(name) {
      const fullName = `aurae-${tag}-${name}`;
      await sh("ip", "netns", "del", fullName);
      namespaces.delete(fullName);
    },
    defer: (undo) => owned.defer(async () => void (await undo())),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

export function requestFor(podId: string, netnsPath: string, more: Partial<NetworkRequest> = {}): NetworkRequest {
  return { podId, netnsPath, podName: "web", podNamespace: "default", podUid: "uid-1", portMappings: [], ...more };
}

/** One call that a fake plugin saw. */
export interface PluginRecord {
  readonly command: string;
  readonly plugin: string;
  readonly containerId: string;
  readonly netns: string;
  readonly ifname: string;
  readonly args: string;
  readonly config: Record<string, unknown>;
}

export interface FakePlugins {
  readonly binDir: string;
  calls(): Promise<readonly PluginRecord[]>;
  /** `ADD bridge`, one per call, in order. */
  sequence(): Promise<readonly string[]>;
  /** Shell that runs instead of the plugin's own answer. */
  behave(plugin: string, command: string, shell: string): Promise<void>;
  forget(): Promise<void>;
}

const FAKE_RESULT = {
  interfaces: [{ name: "vethfake" }, { name: "eth0", sandbox: "/the/pod" }],
  ips: [
    { address: "192.0.2.7/24", interface: 1 },
    { address: "2001:db8::7/64", interface: 1 },
  ],
};

/** A shell script, once per name, that writes down how it was called and answers like a plugin. */
export async function createFakePlugins(directory: string, plugins: readonly string[]): Promise<FakePlugins> {
  const binDir = join(directory, "bin");
  await mkdir(binDir);
  const log = join(binDir, "calls.log");
  await writeFile(join(binDir, "result.json"), JSON.stringify(FAKE_RESULT));
  await writeFile(log, "");
  const script = [
    "#!/bin/sh",
    "d=${0%/*}; n=${0##*/}; stdin=$(cat)",
    'if [ "$CNI_COMMAND" != VERSION ]; then',
    '  printf \'%s\\t%s\\t%s\\t%s\\t%s\\t%s\\t%s\\n\' "$CNI_COMMAND" "$n" "$CNI_CONTAINERID" "$CNI_NETNS" "$CNI_IFNAME" "$CNI_ARGS" "$stdin" >>"$d/calls.log"',
    "fi",
    'if [ -f "$d/$n.$CNI_COMMAND" ]; then . "$d/$n.$CNI_COMMAND"; exit; fi',
    "case $CNI_COMMAND in",
    'VERSION) echo \'{"cniVersion":"1.1.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}\' ;;',
    'ADD) cat "$d/result.json" ;;',
    "esac",
  ].join("\n");
  for (const plugin of plugins) {
    await writeFile(join(binDir, plugin), script);
    await chmod(join(binDir, plugin), 0o755);
  }
  const calls = async (): Promise<readonly PluginRecord[]> => {
    const lines = (await readFile(log, "utf8")).split("\n").filter((line) => line !== "");
    return lines.map((line) => {
      const [command = "", plugin = "", containerId = "", netns = "", ifname = "", args = "", stdin = ""] = line.split("\t");
      return { command, plugin, containerId, netns, ifname, args, config: JSON.parse(stdin) as Record<string, unknown> };
    });
  };
  return {
    binDir,
    calls,
    sequence: async () => (await calls()).map(({ command, plugin }) => `${command} ${plugin}`),
    behave: (plugin, command, shell) => writeFile(join(binDir, `${plugin}.${command}`), `${shell}\n`),
    forget: () => writeFile(log, ""),
  };
}
