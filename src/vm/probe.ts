import type { VirtualizationReport } from "../runtime/ports.ts";
import { findBootParts, verdictKey } from "./boot-parts.ts";
import { loadGuestFiles } from "./guest-files.ts";
import { resolveVmOptions, type VmOptions } from "./options.ts";
import { bootTrial } from "./trial-boot.ts";
import { keepVerdict, readVerdict } from "./verdict.ts";
import { reportOf } from "./virtualization.ts";

interface Wait {
  readonly signal: AbortSignal;
}

/** Under emulation a boot on a busy node takes its time, and nobody waits behind it. */
const EMULATED_TIMEOUT_MS = 60_000;

/** For an operator's questions: looks at the same things as the daemon, one at a time and without it. */
export class VmProbe {
  readonly #options: ReturnType<typeof resolveVmOptions>;

  constructor(options: VmOptions) {
    this.#options = resolveVmOptions(options);
  }

  get qemuPath(): string {
    return this.#options.qemuPath;
  }

  /** Throws ERR_GUEST_FILES with every flaw. */
  async guestFiles(wait: Wait): Promise<{ readonly dir: string; readonly versions: string }> {
    const { directory, kernelRelease, auraedVersion } = await loadGuestFiles(this.#options.guestDir, wait);
    return { dir: directory, versions: `Linux ${kernelRelease}, auraed ${auraedVersion}` };
  }

  /** Undefined: none about the parts that are there now. Throws like `findBootParts`. */
  async keptVerdict(wait: Wait): Promise<VirtualizationReport | undefined> {
    const parts = await this.#parts(wait);
    const kept = await readVerdict(this.#options.verdictFile, verdictKey(parts, this.#options.bootId));
    return kept === undefined ? undefined : reportOf(kept.outcome, parts.accelerator.kind);
  }

  /** Boots once and keeps the verdict, for a daemon that starts later. Throws like `findBootParts`. */
  async trialBoot(wait: Wait): Promise<{ readonly report: VirtualizationReport; readonly firstAnswerMs: number | undefined }> {
    const { verdictFile, bootId, trialTimeoutMs } = this.#options;
    const parts = await this.#parts(wait);
    const accelerator = parts.accelerator.kind;
    const key = verdictKey(parts, bootId);
    const kept = await readVerdict(verdictFile, key);
    const timeoutMs = accelerator === "tcg" ? EMULATED_TIMEOUT_MS : trialTimeoutMs;
    const outcome = await bootTrial(parts, { timeoutMs, signal: wait.signal });
    const failures = outcome.booted ? 0 : (kept?.failures ?? 0) + 1;
    await keepVerdict(verdictFile, { key, outcome, failures, triedAtMs: Date.now() });
    return { report: reportOf(outcome, accelerator), firstAnswerMs: outcome.booted ? outcome.firstAnswerMs : undefined };
  }

  async #parts(wait: Wait) {
    const { accelerator } = this.#options;
    // `check` does not come here when it is off: then there is nothing to prove.
    return await findBootParts({ ...this.#options, accelerator: accelerator === "off" ? "auto" : accelerator }, wait);
  }
}
