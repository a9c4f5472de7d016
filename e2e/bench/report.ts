import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { cpus, release } from "node:os";

import { type Comparison, compareSamples, percentile, type Sample, type Summary } from "./statistics.ts";

export interface Measured {
  readonly name: string;
  /** None: the ratio is told and nothing is promised. */
  readonly goal?: number;
  readonly comparison: Comparison;
}

/** Which part of the page: flat pods beside containerd, microVMs beside bare QEMU, or the conformance suite's own benchmarks. */
export type Section = "flat" | "microvm" | "critest";

function marks(section: Section) {
  const name = section === "flat" ? "bench" : `bench ${section}`;
  return { begin: `<!-- ${name}: begin, written by \`make bench\` -->`, end: `<!-- ${name}: end -->` };
}

/** The table of one run, in Markdown that also reads well in a terminal. */
export function renderReport(subject: string, peer: string, measured: readonly Measured[]): string {
  const rows = measured.flatMap(({ name, goal, comparison }) => [
    row([
      name,
      subject,
      ...figures(comparison.subject),
      `**${comparison.pairedRatio.toFixed(2)}**${goal === undefined ? "" : ` (goal ${goal})`}`,
      comparison.cpuRatio.toFixed(2),
    ]),
    row([name, peer, ...figures(comparison.peer), "1", "1"]),
  ]);
  const header = [
    row(["operation", "runtime", "n", "p50 ms", "p99 ms", "CPU-ms", "ratio, paired p50", "ratio, CPU"]),
    row(["---", "---", "--:", "--:", "--:", "--:", "--:", "--:"]),
  ];
  return [
    `Linux ${release()}, ${cpus().length} CPUs, Node ${process.versions.node}, ${new Date().toISOString().slice(0, 10)}.`,
    "",
    ...header,
    ...rows,
  ].join("\n");
}

/** Puts the table between the markers of the document; without them it goes to the end. */
export async function writeReport(path: string, report: string, part: Section = "flat"): Promise<void> {
  const { begin, end } = marks(part);
  const text = existsSync(path) ? await readFile(path, "utf8") : "# Limits in numbers\n";
  const section = `${begin}\n\n${report}\n\n${end}`;
  const from = text.indexOf(begin);
  const to = text.indexOf(end);
  const next = from === -1 || to === -1 ? `${text.trimEnd()}\n\n${section}\n` : text.slice(0, from) + section + text.slice(to + end.length);
  await writeFile(path, next);
}

/** One connection of `sizeMib` in one direction, through either runtime and through a relay, some times in turn. */
export interface Forwarded {
  readonly direction: string;
  readonly sizeMib: number;
  readonly subject: readonly Sample[];
  readonly peer: readonly Sample[];
  readonly relayMs: readonly number[];
}

/** The ratios are of throughput: above 1 the subject is faster. */
export function renderForwards(subject: string, peer: string, forwards: readonly Forwarded[]): string {
  const throughput = (ms: readonly number[], sizeMib: number) => ((sizeMib * 1.048_576) / (percentile(ms, 50) / 1000)).toFixed(0);
  const rows = forwards.map(({ direction, sizeMib, subject: ours, peer: theirs, relayMs }) => {
    const [oursMs, theirsMs] = [ours, theirs].map((samples) => samples.map(({ wallMs }) => wallMs)) as [number[], number[]];
    const ratio = (others: readonly number[]) =>
      percentile(
        oursMs.map((ms, index) => (others[index] ?? Number.NaN) / ms),
        50,
      ).toFixed(2);
    const comparison = compareSamples(ours.map((sample, index) => ({ subject: sample, peer: theirs[index] ?? sample })));
    return row([
      direction,
      String(ours.length),
      ...[oursMs, theirsMs, relayMs].map((ms) => throughput(ms, sizeMib)),
      `**${ratio(theirsMs)}** (goal 1)`,
      ratio(relayMs),
      comparison.cpuRatio.toFixed(2),
    ]);
  });
  const header = [
    "port-forward",
    "n",
    `${subject}, MB/s`,
    `${peer}, MB/s`,
    "socat, MB/s",
    "ratio to the peer",
    "ratio to socat",
    "ratio, CPU",
  ];
  return [row(header), row(["---", ...header.slice(1).map(() => "--:")]), ...rows].join("\n");
}

function figures(summary: Summary): string[] {
  return [String(summary.count), summary.p50Ms.toFixed(1), summary.p99Ms.toFixed(1), summary.meanCpuMs.toFixed(1)];
}

function row(cells: readonly string[]): string {
  return `| ${cells.join(" | ")} |`;
}
