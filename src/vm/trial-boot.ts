import { runUntil, type Watched } from "../host/run-until.ts";
import type { BootParts } from "./boot-parts.ts";
import type { MachineDescription, Wiring } from "./description.ts";
import { qemuArgs } from "./qemu-args.ts";

/** What a trial boot showed. */
export type TrialOutcome =
  | { readonly booted: true; readonly firstAnswerMs: number; readonly message: string }
  | { readonly booted: false; readonly message: string; readonly consoleTail: string };

/** What the guest's auraed prints on the console once it serves. */
const SIGN = /^auraed init: serving\b/;

const TRIAL_MEMORY_MIB = 128;
const CONSOLE_TAIL_BYTES = 8 << 10;
const LINES_TOLD = 3;
const MAX_TOLD = 300;

/**
 * Boots the guest once with the machine that pods get, less their disk and network, and waits for its auraed. Whatever happens, QEMU is gone
 * when the promise settles, and nothing was written anywhere. Rejects when the signal aborts or no process can be started.
 */
export async function bootTrial(
  parts: BootParts,
  options: { readonly timeoutMs: number; readonly signal: AbortSignal },
): Promise<TrialOutcome> {
  const { qemu, files, accelerator } = parts;
  const machine: MachineDescription = {
    accelerator,
    memoryMib: TRIAL_MEMORY_MIB,
    vcpus: 1,
    systemBytes: files.parts.system.sizeBytes,
    beginning: "boot",
  };
  const args = qemuArgs(machine, trialWiring(parts), files.kernelArguments);
  const { signal, timeoutMs } = options;
  const watch = { signal, timeoutMs, sign: SIGN, streams: 1, tailBytes: CONSOLE_TAIL_BYTES };
  const watched = await runUntil({ file: qemu.path, args, cwd: "/" }, watch);
  return judge(watched, parts, timeoutMs);
}

function trialWiring({ files }: BootParts): Wiring {
  const { kernel, system } = files.parts;
  return {
    paths: { kernel: kernel.path, initrd: files.initrd?.path, system: system.path, scratch: undefined, qmp: undefined },
    console: { kind: "stdio" },
    // Somebody is there, who says nothing: that is when the guest's auraed serves.
    control: { kind: "fd", fd: 3 },
    volumes: { kind: "nobody" },
    tap: undefined,
  };
}

function judge(watched: Watched, { qemu, files, accelerator }: BootParts, timeoutMs: number): TrialOutcome {
  const tried = `a trial boot of the guest (Linux ${files.kernelRelease}, QEMU ${qemu.version}, ${accelerator.kind})`;
  const consoleTail = readable(watched.stdoutTail);
  if (watched.outcome === "sign") {
    return { booted: true, firstAnswerMs: watched.elapsedMs, message: `${tried} answered after ${Math.round(watched.elapsedMs)} ms` };
  }
  const end = watched.outcome === "timeout" ? `did not answer within ${timeoutMs / 1000} s` : `ended ${howItEnded(watched)}`;
  const said = [lastLines("the guest's last words", consoleTail), lastLines("QEMU's", readable(watched.stderrTail))].filter(
    (text) => text !== "",
  );
  const words = said.length === 0 ? "neither the guest nor QEMU said anything" : said.join("; ");
  return { booted: false, message: `${tried} ${end}: ${words}; ${remedy(accelerator.kind)}`, consoleTail };
}

function howItEnded({ exitCode, signal }: Watched): string {
  return signal === undefined ? `with exit code ${exitCode}` : `by ${signal}`;
}

function remedy(accelerator: "kvm" | "tcg"): string {
  if (accelerator === "tcg") return "`aurae-cri check --full` tries it again";
  return "KVM does not work here: where the node is a virtual machine, its hypervisor must offer full nested virtualization, else dmesg may tell more; `aurae-cri check --full` tries it again";
}

/** What a kernel prints after a panic tells an operator nothing. */
function lastLines(who: string, text: string): string {
  const all = text.split("\n");
  const panic = all.findIndex((line) => line.includes("Kernel panic"));
  const lines = all
    .slice(0, panic === -1 ? all.length : panic + 1)
    .slice(-LINES_TOLD)
    .join(" | ")
    .slice(-MAX_TOLD);
  return lines === "" ? "" : `${who}: ${lines}`;
}

/** Anything can be on a console: lines of what can be read, empty ones left out. */
function readable(text: string): string {
  const lines = text.split(/[\r\n]+/).map((line) => line.replaceAll(/\p{Cc}+/gu, " ").trim());
  return lines.filter((line) => line !== "").join("\n");
}
