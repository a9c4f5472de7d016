import { cpus, release } from "node:os";

import { percentile } from "./statistics.ts";
import type { IdleCost } from "./vm-processes.ts";

/** The phase in which a pod's machine comes up, which tells how. */
export type Beginning = "guest-boot" | "guest-restore";

/** One RunPodSandbox. */
export interface MicrovmSample {
  readonly wallMs: number;
  /** Outside the guest: the daemon, CNI, `auraed vm`, and QEMU's threads but those that run the guest. */
  readonly cpuMs: number;
  readonly phases: ReadonlyMap<string, number>;
}

/** A pod that boots, a bare boot, and a pod that goes on from a template, one after the other. */
export interface MicrovmRound {
  readonly booted: MicrovmSample;
  readonly bareMs: number;
  readonly restored: MicrovmSample;
}

interface Idle {
  readonly booted: IdleCost;
  readonly restored: IdleCost;
}

const OVERHEAD_GOAL = 0.35;

/** Markdown that also reads well in a terminal. */
export function renderMicrovmReport(rounds: readonly MicrovmRound[], idle: Idle): string {
  const bare = rounds.map(({ bareMs }) => bareMs);
  const row = (name: string, valueOf: (sample: MicrovmSample) => number | undefined) =>
    `| ${name} | ${cells(rounds.map(({ booted }) => valueOf(booted)))} | ${cells(rounds.map(({ restored }) => valueOf(restored)))} |`;
  return [
    `Linux ${release()}, ${cpus().length} CPUs, Node ${process.versions.node}, ${new Date().toISOString().slice(0, 10)}; n = ${rounds.length}.`,
    "",
    "| what | booted, p50 | p99 | from a template, p50 | p99 |",
    "| --- | --: | --: | --: | --: |",
    row("RunPodSandbox, ms", ({ wallMs }) => wallMs),
    `| bare QEMU, same machine and kernel, to \`hello\`, ms | ${cells(bare)} | ${cells(bare)} |`,
    overheadRow(rounds),
    row("CPU-ms outside the guest", ({ cpuMs }) => cpuMs),
    ...phaseNames(rounds).map((name) => row(`phase ${name}, ms`, ({ phases }) => phases.get(name))),
    "",
    ...renderIdle(idle),
  ].join("\n");
}

/** Negative: the pod is there before the bare machine has booted. */
function overheadRow(rounds: readonly MicrovmRound[]): string {
  const columns = (["booted", "restored"] as const).map((way) => {
    const overheads = rounds.map((round) => (round[way].wallMs - round.bareMs) / round.bareMs);
    return `**${percentile(overheads, 50).toFixed(2)}** | ${percentile(overheads, 99).toFixed(2)}`;
  });
  return `| **overhead over the bare boot**, paired (goal ${OVERHEAD_GOAL}) | ${columns.join(" | ")} |`;
}

/** In the order of a boot; what only a restored pod has stands where it comes. */
function phaseNames([first]: readonly MicrovmRound[]): readonly string[] {
  if (first === undefined) return [];
  const names = [...first.booted.phases.keys()];
  for (const [index, name] of [...first.restored.phases.keys()].entries()) if (!names.includes(name)) names.splice(index + 1, 0, name);
  return names;
}

/** The median and the 99th percentile; empty for what never was. */
function cells(values: readonly (number | undefined)[]): string {
  const known = values.filter((value) => value !== undefined);
  return known.length === 0 ? " | " : `${percentile(known, 50).toFixed(0)} | ${percentile(known, 99).toFixed(0)}`;
}

function renderIdle({ booted, restored }: Idle): string[] {
  const row = (name: string, kibOf: (cost: IdleCost) => number) => `| ${name} | ${mib(kibOf(booted))} | ${mib(kibOf(restored))} |`;
  return [
    "| an idle pod with one container and one volume, MiB | booted | from a template |",
    "| --- | --: | --: |",
    row(`guest memory in use, of ${mib(restored.guestTotal)}`, ({ guestUsed }) => guestUsed),
    row("PSS of QEMU, without the buffer of translated code", ({ qemu }) => qemu),
    row("that buffer, which KVM does not need", ({ codeBuffer }) => codeBuffer),
    row("PSS of `auraed vm`", ({ supervisor }) => supervisor),
    row("PSS of `auraed fs`", ({ volumes }) => volumes),
  ];
}

function mib(kib: number): string {
  return (kib / 1024).toFixed(1);
}
