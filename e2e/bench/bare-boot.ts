import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";

import { mustRun } from "../harness/command.ts";
import { repositoryDir } from "../harness/settings.ts";

const guestDir = join(repositoryDir, "build", "guest");
/** What the init of `hello.initrd` prints. */
const SIGN = "hello from pid 1";
const LIMIT_MS = 60_000;

/**
 * The machine of a pod, from its QEMU's own command line, with another init and nobody at its ports: the same kernel, memory, processor and
 * devices. What `auraed vm` hands over as descriptors becomes a null device, the network's backend a hub without anything else on it. The pod must
 * have booted: a machine that goes on from a template waits for its state.
 */
export function bareArguments(qemuArguments: readonly string[], scratch: string): string[] {
  if (qemuArguments.includes("-incoming")) throw new Error("the pod whose machine is to be booted bare has not booted itself");
  const files: Readonly<Record<string, string>> = {
    "/kernel": join(guestDir, "vmlinux"),
    "/system.erofs": join(guestDir, "system.erofs"),
    "/scratch.img": scratch,
  };
  const bare: string[] = [];
  for (const [index, argument] of qemuArguments.entries()) {
    if (argument === "-qmp" || qemuArguments[index - 1] === "-qmp") continue;
    bare.push(bareArgument(argument, files));
  }
  return [...bare, "-initrd", join(guestDir, "hello.initrd")];
}

function bareArgument(argument: string, files: Readonly<Record<string, string>>): string {
  const stream = /^socket,id=(\w+),fd=\d+$/.exec(argument)?.[1];
  if (stream === "console") return "stdio,id=console,signal=off";
  if (stream !== undefined) return `null,id=${stream}`;
  if (argument.startsWith("tap,")) return "hubport,id=net0,hubid=0";
  const file = files[argument];
  if (file !== undefined) return file;
  // In the JSON of a disk, and of memory.
  return Object.entries(files).reduce((text, [from, to]) => text.replace(`":"${from}"`, `":"${to}"`), argument);
}

/** A scratch disk as a pod's. The bare machine never writes to it. */
export async function makeScratch(path: string): Promise<void> {
  await mustRun("cp", ["--sparse=always", join(guestDir, "scratch.img"), path]);
}

/** From the execution of QEMU to the line on the console; the machine then powers itself off. */
export async function bootBare(args: readonly string[]): Promise<number> {
  const begunMs = performance.now();
  const child = spawn("/usr/bin/qemu-system-x86_64", args, { stdio: ["ignore", "pipe", "pipe"], timeout: LIMIT_MS, killSignal: "SIGKILL" });
  const ended = once(child, "close");
  let printed = "";
  let elapsedMs: number | undefined;
  const listen = (chunk: Buffer) => {
    printed = (printed + chunk.toString()).slice(-4096);
    if (elapsedMs === undefined && printed.includes(SIGN)) elapsedMs = performance.now() - begunMs;
  };
  child.stdout.on("data", listen);
  child.stderr.on("data", listen);
  await ended;
  if (elapsedMs === undefined) throw new Error(`bare QEMU printed no '${SIGN}': ${printed}`);
  return elapsedMs;
}
