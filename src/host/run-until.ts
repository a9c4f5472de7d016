import { type ChildProcess, spawn } from "node:child_process";
import { abortedError, type Command, killGroup, spawnError } from "./process.ts";

export interface RunUntilOptions {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
  /** Looked for in each whole line of stdout. */
  readonly sign: RegExp;
  /** The program finds so many streams open from descriptor 3 on; what it writes there is dropped. Default 0. */
  readonly streams?: number;
  /** Done with the program at its sign, before it is ended. */
  readonly atSign?: () => Promise<void>;
  /** Of stdout and of stderr each, the newest. Default 16 KiB. */
  readonly tailBytes?: number;
}

/** What became of a program that was watched. Whatever it was, the program is gone. */
export interface Watched {
  readonly outcome: "sign" | "ended" | "timeout";
  readonly elapsedMs: number;
  /** How it ended by itself. */
  readonly exitCode: number | undefined;
  readonly signal: NodeJS.Signals | undefined;
  readonly stdoutTail: string;
  readonly stderrTail: string;
}

/** Lines longer than this are judged in pieces. */
const MAX_LINE_BYTES = 4096;

/**
 * Runs a program until it prints a sign, ends, or is out of time; then kills its process group and waits until it is gone. Should this process
 * be killed meanwhile, the program is too; timeout(1) ends it in our stead when it is only stopped.
 */
export async function runUntil(command: Command, options: RunUntilOptions): Promise<Watched> {
  if (options.signal.aborted) throw abortedError(command.file, options.signal);
  const startedAtMs = performance.now();
  const child = start(command, options);
  const { promise, resolve, reject } = Promise.withResolvers<Watched["outcome"]>();
  const tailBytes = options.tailBytes ?? 16 << 10;
  const stdout = new Tail(tailBytes);
  const stderr = new Tail(tailBytes);
  const lines = new SignWatch(options.sign, () => resolve("sign"));
  child.stdout?.on("data", (chunk: Buffer) => {
    stdout.add(chunk);
    lines.add(chunk);
  });
  child.stderr?.on("data", (chunk: Buffer) => stderr.add(chunk));
  for (const stream of child.stdio.slice(3)) stream?.on("error", () => {}).on("data", () => {});
  child.once("error", (error) => reject(spawnError(command, error)));
  const closed = new Promise<void>((done) => child.once("close", () => done()));
  void closed.then(() => resolve("ended"));
  const onAbort = (): void => reject(abortedError(command.file, options.signal));
  options.signal.addEventListener("abort", onAbort, { once: true });
  const timer = setTimeout(() => resolve("timeout"), options.timeoutMs);
  try {
    const outcome = await promise;
    const elapsedMs = performance.now() - startedAtMs;
    if (outcome === "sign") await options.atSign?.();
    const ended = outcome === "ended";
    const exitCode = ended ? (child.exitCode ?? undefined) : undefined;
    const signal = ended ? (child.signalCode ?? undefined) : undefined;
    return { outcome, elapsedMs, exitCode, signal, stdoutTail: stdout.text(), stderrTail: stderr.text() };
  } finally {
    clearTimeout(timer);
    options.signal.removeEventListener("abort", onAbort);
    killGroup(child);
    if (child.pid !== undefined) await closed;
  }
}

/** Dies with its parent. */
const mortal = "setpriv --pdeathsig KILL --";
/** Some time after our own deadline, which is the one that counts. */
const GRACE_MS = 5_000;

function start(command: Command, { timeoutMs, streams = 0 }: RunUntilOptions): ChildProcess {
  const seconds = Math.ceil((timeoutMs + GRACE_MS) / 1000);
  try {
    // In the foreground of its own session, so that one process group holds all. A crash leaves no core file, wherever the host would put it.
    const script = `ulimit -c 0; exec ${mortal} timeout --foreground --signal=KILL ${seconds} ${mortal} "$@"`;
    return spawn("/bin/sh", ["-c", script, "sh", command.file, ...(command.args ?? [])], {
      ...(command.cwd === undefined ? {} : { cwd: command.cwd }),
      env: { PATH: "/usr/local/bin:/usr/bin:/bin", ...command.env },
      detached: true,
      stdio: ["ignore", "pipe", "pipe", ...Array.from({ length: streams }, () => "pipe" as const)],
    });
  } catch (error) {
    throw spawnError(command, error);
  }
}

class Tail {
  readonly #maxBytes: number;
  #bytes = Buffer.alloc(0);

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  add(chunk: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk]).subarray(-this.#maxBytes);
  }

  text(): string {
    return this.#bytes.toString("utf8");
  }
}

class SignWatch {
  readonly #sign: RegExp;
  readonly #onSign: () => void;
  #line = "";

  constructor(sign: RegExp, onSign: () => void) {
    this.#sign = sign;
    this.#onSign = onSign;
  }

  add(chunk: Buffer): void {
    const lines = (this.#line + chunk.toString("latin1")).split(/[\r\n]+/);
    this.#line = (lines.pop() ?? "").slice(-MAX_LINE_BYTES);
    if (lines.some((line) => this.#sign.test(line))) this.#onSign();
  }
}
