import { cpus, release } from "node:os";

import { percentile } from "./statistics.ts";
import type { IdleCost } from "./vm-processes.ts";

/** One RunPodSandbox and, after it, one bare boot. */
export interface MicrovmSample {
  readonly wallMs: number;
  /** Outside the guest: the daemon, CNI, `auraed vm`, and QEMU's threads but those that run the guest. */
  readonly cpuMs: number;
  readonly phases: ReadonlyMap<string, number>;
  readonly bareMs: number;
}

const OVERHEAD_GOAL = 0.35;

/** Markdown that also reads well in a terminal. */
export function renderMicrovmReport(samples: readonly MicrovmSample[], idle: IdleCost): string {
  const wall = samples.map(({ wallMs }) => wallMs);
  const bare = samples.map(({ bareMs }) => bareMs);
  const overheads = samples.map(({ wallMs, bareMs }) => (wallMs - bareMs) / bareMs);
  const phases = [...(samples[0]?.phases.keys() ?? [])];
  return [
    `Linux ${release()}, ${cpus().length} CPUs, Node ${process.versions.node}, ${new Date().toISOString().slice(0, 10)}; n = ${samples.length}.`,
    "",
    "| what | p50 | p99 |",
    "| --- | --: | --: |",
    row("RunPodSandbox, ms", wall),
    row("bare QEMU, same machine and kernel, to `hello`, ms", bare),
    `| **overhead over the bare boot**, paired | **${percentile(overheads, 50).toFixed(2)}** (goal ${OVERHEAD_GOAL}) | ${percentile(overheads, 99).toFixed(2)} |`,
    row(
      "CPU-ms outside the guest",
      samples.map(({ cpuMs }) => cpuMs),
    ),
    ...phases.map((name) =>
      row(
        `phase ${name}, ms`,
        samples.map(({ phases: own }) => own.get(name) ?? 0),
      ),
    ),
    "",
    "| an idle pod with one container and one volume | MiB |",
    "| --- | --: |",
    `| guest memory in use, of ${mib(idle.guestTotal)} | ${mib(idle.guestUsed)} |`,
    `| PSS of QEMU, without the buffer of translated code | ${mib(idle.qemu)} |`,
    `| that buffer, which KVM does not need | ${mib(idle.codeBuffer)} |`,
    `| PSS of \`auraed vm\` | ${mib(idle.supervisor)} |`,
    `| PSS of \`auraed fs\` | ${mib(idle.volumes)} |`,
  ].join("\n");
}

function row(name: string, values: readonly number[]): string {
  return `| ${name} | ${percentile(values, 50).toFixed(0)} | ${percentile(values, 99).toFixed(0)} |`;
}

function mib(kib: number): string {
  return (kib / 1024).toFixed(1);
}
