import { stat } from "node:fs/promises";
import { release } from "node:os";
import { readTscKhz } from "../host/cpu.ts";
import { openFailure, virtualizationExtension } from "../host/node-facts.ts";
import { run } from "../host/process.ts";
import { messageOf } from "../lib/coded-error.ts";
import type { Accelerator } from "./description.ts";
import { VmError } from "./errors.ts";
import { type GuestFiles, loadGuestFiles } from "./guest-files.ts";
import type { ResolvedVmOptions } from "./options.ts";

/** Everything that a microVM starts from on this node, found and checked. */
export interface BootParts {
  readonly accelerator: Accelerator;
  readonly qemu: Qemu;
  readonly files: GuestFiles;
}

export interface Qemu {
  readonly path: string;
  /** `7.2.22`. */
  readonly version: string;
  /** Changes with the binary. */
  readonly identity: string;
}

/** The oldest with everything that our machines use: read-only file memory, and the sandbox's fine-grained refusals. */
const LEAST_QEMU = [7, 2] as const;
const VERSION_TIMEOUT_MS = 5_000;

/** Throws ERR_QEMU_MISSING, ERR_QEMU_VERSION, ERR_GUEST_FILES, ERR_VM_UNAVAILABLE: what lacks, and the remedy. Boots nothing. */
export async function findBootParts(
  options: ResolvedVmOptions & { readonly accelerator: "auto" | "kvm" | "tcg" },
  wait: { readonly signal: AbortSignal },
): Promise<BootParts> {
  // In the order in which an operator would mend them.
  const qemu = await identifyQemu(options.qemuPath, wait);
  const files = await loadGuestFiles(options.guestDir, wait);
  const accelerator = options.accelerator === "tcg" ? await emulation() : await kvm(options.kvmPath);
  return { accelerator, qemu, files };
}

/** What a verdict is about: with any of these another one, it is worth nothing. */
export function verdictKey({ accelerator, qemu, files }: BootParts, bootId: string): string {
  const { kernel, system } = files.parts;
  const guest = [kernel, system, files.initrd].map((part) => part?.sha256 ?? "none");
  return [accelerator.kind, bootId, release(), qemu.version, qemu.identity, ...guest].join(" ");
}

export async function identifyQemu(path: string, { signal }: { readonly signal: AbortSignal }): Promise<Qemu> {
  const file = await stat(path).catch((error: unknown) => {
    throw missingQemu(path, "not found", error);
  });
  const { exitCode, stdout, stderr } = await run({ file: path, args: ["--version"] }, { signal, timeoutMs: VERSION_TIMEOUT_MS }).catch(
    (error: unknown) => {
      signal.throwIfAborted();
      throw missingQemu(path, messageOf(error), error);
    },
  );
  const [, version, major, minor] = /version ((\d+)\.(\d+)(?:\.\d+)*)/.exec(stdout) ?? [];
  if (exitCode !== 0 || version === undefined)
    throw missingQemu(path, `does not tell its version: ${(stdout + stderr).trim().slice(0, 200)}`);
  const [leastMajor, leastMinor] = LEAST_QEMU;
  if (Number(major) < leastMajor || (Number(major) === leastMajor && Number(minor) < leastMinor)) {
    throw new VmError(
      { code: "ERR_QEMU_VERSION", path, version },
      `${path} is QEMU ${version}, and a microVM needs ${LEAST_QEMU.join(".")} or newer: upgrade it, or name another one in vm.qemu_path`,
    );
  }
  return { path, version, identity: `${file.ino}.${file.size}.${Math.round(file.mtimeMs)}` };
}

function missingQemu(path: string, problem: string, cause?: unknown): VmError {
  return new VmError(
    { code: "ERR_QEMU_MISSING", path },
    `QEMU, ${path}: ${problem}: install it (Debian: qemu-system-x86), or name another place in vm.qemu_path`,
    { cause },
  );
}

async function emulation(): Promise<Accelerator> {
  const hostTscKhz = await readTscKhz();
  if (hostTscKhz === undefined)
    throw unavailable('vm.accelerator = "tcg" needs a host with a time-stamp counter, and /proc/cpuinfo shows none');
  return { kind: "tcg", hostTscKhz };
}

/** That the device opens proves little, that it does not proves all. */
async function kvm(device: string): Promise<Accelerator> {
  const failure = await openFailure(device);
  if (failure === undefined) return { kind: "kvm" };
  const what = `no KVM on this node: ${device} cannot be opened (${failure})`;
  if (failure !== "ENOENT") throw unavailable(`${what}: run the daemon as root, with access to the device`);
  const extension = await virtualizationExtension();
  if (extension !== undefined) throw unavailable(`${what}: load the module, modprobe ${extension === "vmx" ? "kvm_intel" : "kvm_amd"}`);
  throw unavailable(
    `${what}, and the processor shows no extension for it: switch virtualization on in the firmware, or, on a virtual machine, nested virtualization in its hypervisor`,
  );
}

function unavailable(message: string): VmError {
  return new VmError({ code: "ERR_VM_UNAVAILABLE", state: "unavailable" }, message);
}
