import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import type { Readable } from "node:stream";
import { HostError } from "./errors.ts";
import { type ProcessIdentity, readStartTime } from "./pids.ts";
import { abortedError, type Command, killGroup, spawnError, timeoutError } from "./process.ts";

export interface DetachedOptions {
  readonly signal: AbortSignal;
  /** How long the program may take to say that it is ready. */
  readonly readyTimeoutMs: number;
  /** Receives stderr, appended; made with mode 0600. */
  readonly logFile: string;
}

/** What a program writes to stdout, as a line of its own, once it serves. Lines before it are ignored; it must write nothing after. */
export const READY_LINE = "ready";

/** A program that has written this much without its ready line never will. */
const MAX_READY_CHARS = 64 << 10;
const LOG_TAIL_BYTES = 4096;

/**
 * Starts a program that outlives the daemon: a session of its own, no controlling terminal, stderr appended to a log file. Resolves once
 * it has said `ready`; a program that ends, is cancelled or is late before that is killed with its process group and waited for.
 */
export async function spawnDetached(command: Command, options: DetachedOptions): Promise<ProcessIdentity> {
  if (options.signal.aborted) throw abortedError(command.file, options.signal);
  const logFd = openSync(options.logFile, "a+", 0o600);
  try {
    const logStart = fstatSync(logFd).size;
    const child = start(command, logFd);
    // Read before the event loop can reap the child, so that it is the child's even when it has already ended.
    const startTime = child.pid === undefined ? undefined : readStartTime(child.pid);
    const outcome = await waitUntilReady(child, command, options);
    if (outcome === "ready" && child.pid !== undefined && startTime !== undefined) {
      child.stdout?.destroy();
      child.unref();
      return { pid: child.pid, startTime };
    }
    await killAndWait(child);
    throw outcome instanceof HostError ? outcome : notReadyError(command.file, child, readTail(logFd, logStart));
  } finally {
    closeSync(logFd);
  }
}

function start(command: Command, logFd: number): ChildProcess {
  try {
    return spawn(command.file, [...(command.args ?? [])], {
      ...(command.cwd === undefined ? {} : { cwd: command.cwd }),
      env: { ...command.env },
      detached: true,
      stdio: ["ignore", "pipe", logFd],
    });
  } catch (error) {
    throw spawnError(command, error);
  }
}

type Readiness = "ready" | "ended" | HostError;

async function waitUntilReady(child: ChildProcess, command: Command, options: DetachedOptions): Promise<Readiness> {
  const { promise, resolve } = Promise.withResolvers<Readiness>();
  const onAbort = (): void => resolve(abortedError(command.file, options.signal));
  const timer = setTimeout(() => resolve(timeoutError(command.file, options.readyTimeoutMs)), options.readyTimeoutMs);
  options.signal.addEventListener("abort", onAbort, { once: true });
  child.on("error", (error) => resolve(spawnError(command, error)));
  child.once("exit", () => resolve("ended"));
  if (child.stdout !== null) onReadyLine(child.stdout, resolve);
  const outcome = await promise;
  clearTimeout(timer);
  options.signal.removeEventListener("abort", onAbort);
  return outcome;
}

function onReadyLine(stdout: Readable, resolve: (outcome: Readiness) => void): void {
  let text = "";
  stdout.setEncoding("utf8");
  stdout.on("data", (chunk: string) => {
    text += chunk;
    if (text.split("\n").slice(0, -1).includes(READY_LINE)) resolve("ready");
    else if (text.length > MAX_READY_CHARS) resolve("ended");
  });
  stdout.on("error", () => {});
}

async function killAndWait(child: ChildProcess): Promise<void> {
  child.stdout?.destroy();
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  killGroup(child);
  await exited;
}

function readTail(fd: number, from: number): string {
  const sizeBytes = fstatSync(fd).size;
  const position = Math.max(from, sizeBytes - LOG_TAIL_BYTES);
  const buffer = Buffer.alloc(Math.max(0, sizeBytes - position));
  const readBytes = readSync(fd, buffer, 0, buffer.length, position);
  return buffer.subarray(0, readBytes).toString("utf8").trim();
}

function notReadyError(file: string, child: ChildProcess, logTail: string): HostError {
  const how = child.signalCode === null ? `exit code ${child.exitCode}` : child.signalCode;
  const said = logTail === "" ? "; its log is empty" : `; its log ends with: ${logTail}`;
  return new HostError({ code: "ERR_PROCESS_NOT_READY", file, logTail }, `program ${file} ended before it was ready (${how})${said}`);
}
