import { stat } from "node:fs/promises";
import { sleep, untilAborted } from "../lib/abort.ts";
import { messageOf } from "../lib/coded-error.ts";
import type { Log } from "../lib/log.ts";
import type { Virtualization, VirtualizationReport } from "../runtime/ports.ts";
import { type BootParts, findBootParts, verdictKey } from "./boot-parts.ts";
import { VmError } from "./errors.ts";
import { type ResolvedVmOptions, resolveVmOptions, type VmOptions } from "./options.ts";
import { bootTrial, type TrialOutcome } from "./trial-boot.ts";
import { keepVerdict, readVerdict, retryAtMs, type Verdict } from "./verdict.ts";

type Settled = Exclude<VirtualizationReport, { readonly state: "unknown" }>;

/** What a look at the node gave. */
interface Finding {
  readonly report: Settled;
  /** When `report` is `available`. */
  readonly parts?: BootParts;
  /** Wait before the next look; undefined: none is needed. */
  readonly nextLookMs: number | undefined;
  /** The next look costs next to nothing: whoever needs a microVM gets one at once. */
  readonly onDemand?: boolean;
}

/** A look that somebody may ask for, or has asked for. */
interface Demand {
  readonly asked: PromiseWithResolvers<void>;
  readonly looked: PromiseWithResolvers<void>;
}

/** Missing files or a missing device are seen at once when they come; to look costs next to nothing. */
const LACKING_LOOK_MS = 60_000;

/**
 * Knows whether this node can run microVMs. Proved by a trial boot, in the background of the daemon's start; a kept verdict about the same parts
 * holds at once, and a negative one is tried again with back-off. Once available, it stays so until the daemon ends.
 */
export class NodeVirtualization implements Virtualization, AsyncDisposable {
  readonly #options: ResolvedVmOptions;
  readonly #log: Log;
  readonly #closing = new AbortController();
  readonly #first = Promise.withResolvers<void>();
  #report: VirtualizationReport = { state: "unknown" };
  #parts: BootParts | undefined;
  #demand: Demand | undefined;
  #work: Promise<void> = Promise.resolve();

  private constructor(options: ResolvedVmOptions, log: Log) {
    this.#options = options;
    this.#log = log;
  }

  /** Returns at once; the look at the node goes on behind it. */
  static open(options: VmOptions, modules: { readonly log: Log }): NodeVirtualization {
    const virtualization = new NodeVirtualization(resolveVmOptions(options), modules.log);
    virtualization.#work = virtualization.#watch();
    return virtualization;
  }

  report(): VirtualizationReport {
    return this.#report;
  }

  async settled({ signal }: { readonly signal: AbortSignal }): Promise<VirtualizationReport> {
    await untilAborted(this.#first.promise, signal);
    return this.#report;
  }

  async lookAgain({ signal }: { readonly signal: AbortSignal }): Promise<VirtualizationReport> {
    const demand = this.#demand;
    demand?.asked.resolve();
    if (demand !== undefined) await untilAborted(demand.looked.promise, signal);
    return this.#report;
  }

  /** What a machine starts from. Throws ERR_VM_UNAVAILABLE. */
  parts(): BootParts {
    if (this.#parts !== undefined) return this.#parts;
    const { state } = this.#report;
    if (this.#report.state === "unavailable") throw new VmError({ code: "ERR_VM_UNAVAILABLE", state: "unavailable" }, this.#report.message);
    throw new VmError(
      { code: "ERR_VM_UNAVAILABLE", state: "unknown" },
      `whether this node can virtualize is not known yet (${state}): try again`,
    );
  }

  /** Stops a trial boot under way and waits until nothing of it is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new DOMException("the vm room is closing", "AbortError"));
    this.#first.promise.catch(() => {});
    this.#first.reject(this.#closing.signal.reason);
    await this.#work;
  }

  async #watch(): Promise<void> {
    const { signal } = this.#closing;
    try {
      for (;;) {
        const { report, parts, nextLookMs, onDemand = false } = await this.#look(signal);
        this.#enter(report, parts);
        this.#demand?.looked.resolve();
        this.#demand = onDemand ? { asked: Promise.withResolvers(), looked: Promise.withResolvers() } : undefined;
        if (nextLookMs === undefined) return;
        await this.#pause(nextLookMs, signal);
      }
    } catch (error) {
      if (signal.aborted) return;
      // Nothing that was foreseen: no pod may wait for a verdict that never comes.
      this.#enter({ state: "unavailable", message: `virtualization cannot be examined: ${messageOf(error)}`, consoleTail: "" }, undefined);
    } finally {
      this.#demand?.looked.resolve();
    }
  }

  /** Ends early when another process has kept a verdict, or when somebody asks for a look. */
  async #pause(durationMs: number, signal: AbortSignal): Promise<void> {
    const { verdictFile, noticeMs } = this.#options;
    const before = await readChangeTime(verdictFile);
    let isAsked = false;
    const asked = this.#demand?.asked.promise.then(() => {
      isAsked = true;
    });
    for (let restMs = durationMs; restMs > 0; restMs -= noticeMs) {
      const slept = sleep(Math.min(restMs, noticeMs), signal);
      await (asked === undefined ? slept : Promise.race([slept, asked]));
      if (isAsked || (await readChangeTime(verdictFile)) !== before) return;
    }
  }

  async #look(signal: AbortSignal): Promise<Finding> {
    const { accelerator } = this.#options;
    if (accelerator === "off") return { report: lacking('vm.accelerator is "off"'), nextLookMs: undefined };
    try {
      const parts = await findBootParts({ ...this.#options, accelerator }, { signal });
      if (parts.accelerator.kind === "kvm") return await this.#prove(parts, signal);
      const message = 'software emulation, because vm.accelerator is "tcg": slow, for tests';
      return { report: { state: "available", accelerator: "tcg", message }, parts, nextLookMs: undefined };
    } catch (error) {
      if (!(error instanceof VmError)) throw error;
      return { report: lacking(error.message), nextLookMs: LACKING_LOOK_MS, onDemand: true };
    }
  }

  async #prove(parts: BootParts, signal: AbortSignal): Promise<Finding> {
    const { verdictFile, bootId, trialTimeoutMs } = this.#options;
    const key = verdictKey(parts, bootId);
    const kept = await readVerdict(verdictFile, key);
    if (kept !== undefined && (kept.outcome.booted || Date.now() < retryAtMs(kept, this.#options))) return this.#finding(kept, parts);
    // It is tried again: until that is over, what was known holds.
    if (kept !== undefined) this.#enter(reportOf(kept.outcome, "kvm"), undefined);
    const outcome = await bootTrial(parts, { timeoutMs: trialTimeoutMs, signal });
    const failures = outcome.booted ? 0 : (kept?.failures ?? 0) + 1;
    const verdict: Verdict = { key, outcome, failures, triedAtMs: Date.now() };
    await keepVerdict(verdictFile, verdict).catch((error: unknown) => {
      this.#log.warn("the verdict of the trial boot cannot be kept", { file: verdictFile }, error);
    });
    return this.#finding(verdict, parts);
  }

  #finding(verdict: Verdict, parts: BootParts): Finding {
    const report = reportOf(verdict.outcome, "kvm");
    if (verdict.outcome.booted) return { report, parts, nextLookMs: undefined };
    return { report, nextLookMs: Math.max(0, retryAtMs(verdict, this.#options) - Date.now()) };
  }

  #enter(next: Settled, parts: BootParts | undefined): void {
    const changed = JSON.stringify(next) !== JSON.stringify(this.#report);
    this.#report = next;
    this.#parts = parts;
    this.#first.resolve();
    if (!changed) return;
    if (next.state === "available") this.#log.info("microVMs are available", { accelerator: next.accelerator, detail: next.message });
    else this.#log.warn("microVMs are not available", { detail: next.message });
  }
}

/** Undefined when there is no such file. */
async function readChangeTime(file: string): Promise<number | undefined> {
  return (await stat(file).catch(() => undefined))?.mtimeMs;
}

export function reportOf(outcome: TrialOutcome, accelerator: "kvm" | "tcg"): Settled {
  if (outcome.booted) return { state: "available", accelerator, message: outcome.message };
  return { state: "unavailable", message: outcome.message, consoleTail: outcome.consoleTail };
}

function lacking(message: string): Settled {
  return { state: "unavailable", message, consoleTail: "" };
}
