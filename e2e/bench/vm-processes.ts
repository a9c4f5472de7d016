import { readdir, readFile } from "node:fs/promises";

import { mustRun } from "../harness/command.ts";

/** The processes of one microVM pod on the host. */
export interface Processes {
  readonly supervisor: number;
  readonly qemu: number;
  /** The server of volumes; undefined while the pod has none. */
  readonly volumes: number | undefined;
  /** Without the program's name. */
  readonly qemuArguments: readonly string[];
}

/** In KiB. */
export interface IdleCost {
  readonly guestUsed: number;
  readonly guestTotal: number;
  /** Without the buffer of translated code. */
  readonly qemu: number;
  readonly codeBuffer: number;
  readonly supervisor: number;
  readonly volumes: number;
}

export async function processesOf(supervisor: number): Promise<Processes> {
  const children = (await mustRun("ps", ["-o", "pid=", "--ppid", String(supervisor)])).trim().split(/\s+/).map(Number);
  const lines = await Promise.all(children.map(async (pid) => ({ pid, words: await commandLine(pid) })));
  const qemu = lines.find(({ words }) => words[0]?.includes("qemu-system"));
  if (qemu === undefined) throw new Error(`process ${supervisor} has no QEMU`);
  return {
    supervisor,
    qemu: qemu.pid,
    volumes: lines.find(({ words }) => words[1] === "fs")?.pid,
    qemuArguments: qemu.words.slice(1),
  };
}

async function commandLine(pid: number): Promise<string[]> {
  return (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0").slice(0, -1);
}

/** CPU time of every thread of QEMU but those that run the guest. */
export async function vmmCpuMs({ qemu }: Processes): Promise<number> {
  let ticks = 0;
  for (const task of await readdir(`/proc/${qemu}/task`)) {
    const stat = await readFile(`/proc/${qemu}/task/${task}/stat`, "utf8");
    if (/\(CPU \d+\/(?:TCG|KVM)\)/.test(stat)) continue;
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  // USER_HZ is 100 on every architecture that we run on.
  return ticks * 10;
}

export async function idleCost(processes: Processes, meminfo: string): Promise<IdleCost> {
  const guest = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(meminfo)?.[1]);
  const { total, code } = await pssOf(processes.qemu);
  return {
    guestTotal: guest("MemTotal"),
    guestUsed: guest("MemTotal") - guest("MemAvailable"),
    qemu: total - code,
    codeBuffer: code,
    supervisor: (await pssOf(processes.supervisor)).total,
    volumes: processes.volumes === undefined ? 0 : (await pssOf(processes.volumes)).total,
  };
}

const LEAST_CODE_BUFFER_KIB = 16 * 1024;

/** Proportional set size, and what of it is a large anonymous mapping that is executable: the translated code of an emulated machine. */
async function pssOf(pid: number): Promise<{ readonly total: number; readonly code: number }> {
  let [total, code, isCode] = [0, 0, false];
  let sizeKib = 0;
  for (const line of (await readFile(`/proc/${pid}/smaps`, "utf8")).split("\n")) {
    const mapping = /^[0-9a-f]+-[0-9a-f]+ (\S{4}) \S+ \S+ (\d+)/.exec(line);
    if (mapping !== null) isCode = (mapping[1] ?? "").includes("x") && mapping[2] === "0";
    sizeKib = Number(/^Size:\s+(\d+)/.exec(line)?.[1] ?? sizeKib);
    const pss = Number(/^Pss:\s+(\d+)/.exec(line)?.[1] ?? 0);
    total += pss;
    if (isCode && sizeKib >= LEAST_CODE_BUFFER_KIB) code += pss;
  }
  return { total, code };
}
