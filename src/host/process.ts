import { type ChildProcess, spawn } from "node:child_process";
import type { Readable } from "node:stream";
import { HostError } from "./errors.ts";

/** A program to run. Nothing is inherited but what is written here; a missing `env` is an empty one. */
export interface Command {
  readonly file: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: string;
  readonly cwd?: string;
}

export interface RunOptions {
  readonly signal: AbortSignal;
  /** Without one the program may run until `signal` aborts. */
  readonly timeoutMs?: number;
  /** Of stdout and of stderr each; more is an error. Default 1 MiB. */
  readonly maxOutputBytes?: number;
}

/** How a program ended: exactly one of `exitCode` and `signal` is set. */
export interface ProcessResult {
  readonly exitCode: number | undefined;
  readonly signal: NodeJS.Signals | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** How long after its exit a program's pipes may be held open by what it started, before they are closed on our side. */
const DRAIN_MS = 500;

/**
 * Runs a program to its end. A non-zero exit is a result, not an error. Abort, timeout and too much output kill its whole process
 * group, and the promise settles only when the program is gone.
 */
export async function run(command: Command, options: RunOptions): Promise<ProcessResult> {
  if (options.signal.aborted) throw abortedError(command.file, options.signal);
  const { promise, resolve, reject } = Promise.withResolvers<ProcessResult>();
  const maxOutputBytes = options.maxOutputBytes ?? 1 << 20;
  const child = start(command);
  let failure: HostError | undefined;

  function stop(error: HostError): void {
    failure ??= error;
    killGroup(child);
  }
  const stdout = collect(child.stdout, maxOutputBytes, () => stop(outputError(command.file, maxOutputBytes)));
  const stderr = collect(child.stderr, maxOutputBytes, () => stop(outputError(command.file, maxOutputBytes)));
  const onAbort = (): void => stop(abortedError(command.file, options.signal));
  const { timeoutMs } = options;
  const timer = timeoutMs === undefined ? undefined : setTimeout(() => stop(timeoutError(command.file, timeoutMs)), timeoutMs);
  let drain: NodeJS.Timeout | undefined;
  options.signal.addEventListener("abort", onAbort, { once: true });

  function settle(exitCode: number | null, signal: NodeJS.Signals | null): void {
    clearTimeout(timer);
    clearTimeout(drain);
    options.signal.removeEventListener("abort", onAbort);
    if (failure !== undefined) reject(failure);
    else resolve({ exitCode: exitCode ?? undefined, signal: signal ?? undefined, stdout: stdout(), stderr: stderr() });
  }
  child.once("error", (error) => {
    failure ??= spawnError(command, error);
    // A program that never started has no exit and, for some errors, no close either.
    if (child.pid === undefined) settle(null, null);
  });
  child.once("exit", () => {
    drain = setTimeout(() => {
      child.stdout?.destroy();
      child.stderr?.destroy();
    }, DRAIN_MS);
  });
  child.once("close", settle);
  // A program may well end without reading its input.
  child.stdin?.on("error", () => {});
  child.stdin?.end(command.stdin);
  return await promise;
}

function start(command: Command): ChildProcess {
  try {
    return spawn(command.file, [...(command.args ?? [])], {
      ...(command.cwd === undefined ? {} : { cwd: command.cwd }),
      env: { ...command.env },
      // A session of its own, so that what it starts can be killed with it.
      detached: true,
      stdio: [command.stdin === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    });
  } catch (error) {
    throw spawnError(command, error);
  }
}

/** SIGKILL to a child started with `detached: true` and everything in its process group. */
export function killGroup(child: ChildProcess): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    child.kill("SIGKILL");
  }
}

function collect(stream: Readable | null, maxBytes: number, onTooMuch: () => void): () => string {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  stream?.on("data", (chunk: Buffer) => {
    sizeBytes += chunk.length;
    if (sizeBytes <= maxBytes) chunks.push(chunk);
    else onTooMuch();
  });
  stream?.on("error", () => {});
  return () => Buffer.concat(chunks).toString("utf8");
}

export function spawnError(command: Command, error: unknown): HostError {
  const errno = error instanceof Error && "code" in error ? String(error.code) : "unknown";
  const { file } = command;
  if (errno === "ENOENT") {
    const where = command.cwd === undefined ? "" : ` (or its working directory ${command.cwd})`;
    return new HostError({ code: "ERR_PROCESS_NOT_FOUND", file }, `program ${file} not found${where}`, { cause: error });
  }
  return new HostError({ code: "ERR_PROCESS_SPAWN", file, errno }, `program ${file} cannot be started: ${errno}`, { cause: error });
}

export function abortedError(file: string, signal: AbortSignal): HostError {
  return new HostError({ code: "ERR_PROCESS_ABORTED", file }, `program ${file} was stopped: the call was cancelled`, {
    cause: signal.reason,
  });
}

export function timeoutError(file: string, timeoutMs: number): HostError {
  return new HostError(
    { code: "ERR_PROCESS_TIMEOUT", file, timeoutMs },
    `program ${file} did not end within ${timeoutMs} ms and was killed`,
  );
}

function outputError(file: string, maxOutputBytes: number): HostError {
  return new HostError(
    { code: "ERR_PROCESS_OUTPUT", file, maxOutputBytes },
    `program ${file} wrote more than ${maxOutputBytes} bytes and was killed`,
  );
}
