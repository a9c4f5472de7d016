import { readFileSync } from "node:fs";
import { readdir, readFile, readlink } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

/** A process, told apart from a later one with the same pid. Holds within one boot of the host. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks between boot and the start of the process: field 22 of /proc/PID/stat. */
  readonly startTime: number;
}

export interface ProcessStat {
  readonly pid: number;
  readonly command: string;
  /** One letter, as proc(5) has it. */
  readonly state: string;
  readonly parentPid: number;
  readonly startTime: number;
}

/** Parses /proc/PID/stat. The command may hold blanks and parentheses, so the fields are counted from its last parenthesis. */
export function parseStat(text: string): ProcessStat | undefined {
  const open = text.indexOf("(");
  const close = text.lastIndexOf(")");
  if (open < 0 || close < open) return undefined;
  const fields = text.slice(close + 2).split(" ");
  const [state, parentPid] = fields;
  const startTime = fields[19];
  if (state === undefined || parentPid === undefined || startTime === undefined) return undefined;
  return {
    pid: Number(text.slice(0, open)),
    command: text.slice(open + 1, close),
    state,
    parentPid: Number(parentPid),
    startTime: Number(startTime),
  };
}

export function readStat(pid: number): ProcessStat | undefined {
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return undefined;
  }
}

/** Undefined when there is no such process. A zombie still has one. */
export function readStartTime(pid: number): number | undefined {
  return readStat(pid)?.startTime;
}

/** False also for a zombie: nothing of it runs any more. */
export function isAlive({ pid, startTime }: ProcessIdentity): boolean {
  const stat = readStat(pid);
  return stat !== undefined && stat.startTime === startTime && stat.state !== "Z" && stat.state !== "X";
}

const GONE_POLL_MS = 10;

/** SIGKILL, then waits until the process is gone. One that is gone already, or whose pid is another's by now, is success. */
export async function terminate(identity: ProcessIdentity, options: { readonly signal: AbortSignal }): Promise<void> {
  while (isAlive(identity)) {
    options.signal.throwIfAborted();
    try {
      process.kill(identity.pid, "SIGKILL");
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
    }
    if (isAlive(identity)) await sleep(GONE_POLL_MS, undefined, { signal: options.signal });
  }
}

/** Processes whose environment holds `NAME=value`. Those that cannot be read (kernel threads, ended ones) are left out. */
export async function findByEnvironment(name: string, value: string): Promise<readonly ProcessIdentity[]> {
  const wanted = `${name}=${value}`;
  const found: ProcessIdentity[] = [];
  for (const entry of await readdir("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    const pid = Number(entry);
    const startTime = readStartTime(pid);
    const environment = await readFile(`/proc/${pid}/environ`, "utf8").catch(() => "");
    if (startTime !== undefined && environment.split("\0").includes(wanted)) found.push({ pid, startTime });
  }
  return found;
}

/** The executable of a process and the first two words of its command line: for a script, the second is the script. */
export async function readPrograms(pid: number): Promise<readonly string[]> {
  const executable = await readlink(`/proc/${pid}/exe`).catch(() => "");
  const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  return [executable, ...commandLine.split("\0").slice(0, 2)];
}
