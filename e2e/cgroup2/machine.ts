import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { open, realpath } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { readTscKhz } from "../../src/host/cpu.ts";
import { exited, mustRun, terminate } from "../harness/command.ts";
import { installedQemu } from "../harness/guest-dir.ts";
import { childEnvironment } from "../harness/settings.ts";
import { waitFor } from "../harness/wait.ts";

export interface MachineParts {
  /** Sockets, the disk and logs go here. */
  readonly dir: string;
  readonly kernelPath: string;
  readonly initrdPath: string;
  /** Directories that the machine shall see even where they are mounts of their own. */
  readonly sharedDirs: readonly string[];
}

const memory = "3072M";
const diskBytes = 8 * 1024 ** 3;

/** Makes a bind mount of the host's root file system, without what is mounted on it, and serves it: read-only, in a mount namespace of its own. */
const serveRoot = `set -eu
share=$1 socket=$2 log=$3
shift 3
mount --make-rprivate /
mount --bind / "$share"
for dir; do mountpoint -q "$dir" && mount --bind "$dir" "$share$dir"; done
mount -o remount,bind,ro "$share"
exec /usr/lib/qemu/virtiofsd --socket-path="$socket" -o "source=$share,cache=always,sandbox=chroot" >"$log" 2>&1`;

/** Boots a machine with this host's files and runs it until it switches itself off. `onLine` gets what it writes to its second console. */
export async function runMachine(parts: MachineParts, onLine: (line: string) => void, timeoutMs: number): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const own = (child: ChildProcess) => stack.adopt(child, (one) => terminate(one, 2000));
  const diskPath = join(parts.dir, "disk.img");
  await mustRun("truncate", ["-s", String(diskBytes), diskPath]);
  await mustRun("mke2fs", ["-q", "-F", "-t", "ext4", "-O", "^has_journal", diskPath]);
  const socketPath = join(parts.dir, "root.sock");
  await mustRun("mkdir", ["-p", join(parts.dir, "root")]);
  const serveArgs = ["--mount", "sh", "-c", serveRoot, "serve-root", join(parts.dir, "root"), socketPath, join(parts.dir, "virtiofsd.log")];
  own(spawn("unshare", [...serveArgs, ...(await realPaths(parts.sharedDirs))], { stdio: "ignore", env: childEnvironment() }));
  await waitFor("virtiofsd", () => existsSync(socketPath));

  await using console = await open(join(parts.dir, "console.log"), "w");
  const args = await qemuArguments(parts, { diskPath, socketPath });
  const qemu = own(spawn(installedQemu, args, { stdio: ["ignore", "pipe", console.fd], env: childEnvironment() }));
  if (qemu.stdout === null) throw new Error("QEMU has no standard output");
  const timer = setTimeout(() => qemu.kill("SIGKILL"), timeoutMs);
  try {
    for await (const line of createInterface({ input: qemu.stdout })) onLine(line);
    await exited(qemu);
  } finally {
    clearTimeout(timer);
  }
  if (qemu.signalCode !== null) throw new Error(`the machine did not end within ${timeoutMs / 60_000} minutes`);
  if (qemu.exitCode !== 0) throw new Error(`QEMU ended with ${qemu.exitCode}: see ${join(parts.dir, "console.log")}`);
}

async function realPaths(paths: readonly string[]): Promise<readonly string[]> {
  return await Promise.all(paths.map((path) => realpath(path)));
}

async function qemuArguments(parts: MachineParts, { diskPath, socketPath }: { diskPath: string; socketPath: string }) {
  const khz = await readTscKhz();
  // As for our own guests: an emulated timer is too late for the kernel to measure the clock by.
  const clock = khz === undefined ? [] : [`tsc_early_khz=${khz}`, `lpj=${khz * 4}`, "tsc=reliable", "no_timer_check"];
  const command = ["console=ttyS0", "panic=-1", "quiet", "mitigations=off", "random.trust_cpu=on", "apparmor=0", ...clock];
  return [
    // One CPU: with two, code that V8 has just compiled crashes now and then in QEMU 7.2, and Node ends with SIGSEGV.
    ...["-M", "q35,accel=tcg", "-cpu", "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt", "-smp", "1", "-m", memory],
    ...["-object", `memory-backend-memfd,id=ram,size=${memory},share=on`, "-numa", "node,memdev=ram"],
    ...["-nodefaults", "-display", "none", "-no-reboot", "-nic", "none"],
    ...["-kernel", parts.kernelPath, "-initrd", parts.initrdPath, "-append", command.join(" ")],
    ...["-chardev", `file,id=log,path=${join(parts.dir, "console.log")}`, "-serial", "chardev:log"],
    ...["-chardev", "stdio,id=out,signal=off", "-device", "virtio-serial-pci", "-device", "virtconsole,chardev=out"],
    ...["-drive", `if=none,id=disk,file=${diskPath},format=raw,cache=unsafe`, "-device", "virtio-blk-pci,drive=disk"],
    ...["-chardev", `socket,id=root,path=${socketPath}`, "-device", "vhost-user-fs-pci,chardev=root,tag=host"],
    ...["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"],
  ];
}
