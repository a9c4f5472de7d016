/**
 * benchmark.ts [--rounds N] [--count N] [--parallel N]... [--no-write]: runs `critest -benchmark` on aurae-cri, flat, and on containerd in turn, and writes the
 * comparison into docs/limits.md. Each round is one run of each; `--count` is of samples in a run, of which the first is thrown away.
 */
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { z } from "zod";

import { writeReport } from "../bench/report.ts";
import { percentile } from "../bench/statistics.ts";
import { runMain } from "../harness/main.ts";
import { Node } from "../harness/node.ts";
import { takeMachineLock } from "../harness/ports.ts";
import { writeHosts } from "../harness/prefix.ts";
import { Registry } from "../harness/registry.ts";
import { peersDir, repositoryDir } from "../harness/settings.ts";
import { waitFor } from "../harness/wait.ts";
import { critestImages, upstreamHosts } from "./images/images.ts";
import { readParts } from "./images/parts.ts";
import { runCritest } from "./suite.ts";

const outputDir = join(repositoryDir, "build", "critest", "benchmark");
const podFiles = ["pod_benchmark_data.json", "container_benchmark_data.json"];
const imageFiles = ["image_lifecycle_benchmark_data.json", "image_listing_benchmark_data.json"];
const kinds = ["aurae-cri", "containerd"] as const;
type Kind = (typeof kinds)[number];

const dataFile = z.object({
  operationsNames: z.array(z.string()),
  datapoints: z.array(z.object({ sampleIndex: z.number(), operationsDurationsNs: z.array(z.number()) })),
});

/** Milliseconds of one operation at one degree of parallelism, per round and runtime. */
type Rounds = Record<Kind, number[][]>;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "5" },
      count: { type: "string", default: "20" },
      parallel: { type: "string", multiple: true, default: ["1", "4"] },
      "no-write": { type: "boolean", default: false },
    },
  });
  // critest has ports of its own compiled in: 12000 to 12003.
  using _ = await waitFor("another run of critest on this machine to end", () => takeMachineLock("critest"), { timeoutMs: 1_800_000 });
  await using registry = await Registry.start();
  for (const image of critestImages(await readParts())) await registry.push(image);
  await using ours = await Node.start({ kind: "aurae-cri", pods: "flat", registry });
  await using theirs = await Node.start({ kind: "containerd", registry });
  const nodes: Record<Kind, Node> = { "aurae-cri": ours, containerd: theirs };
  for (const node of Object.values(nodes))
    for (const host of upstreamHosts) await writeHosts(node.prefix, host, `server = "http://${registry.host}"\n`);

  const tables: string[] = [];
  for (const parallel of values.parallel.map(Number)) {
    const measured = new Map<string, Rounds>();
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const kind of round % 2 === 0 ? kinds : kinds.toReversed()) {
        const samples = await runOnce(nodes[kind], {
          count: Number(values.count),
          parallel,
          image: `${registry.host}/e2e-test-images/busybox:1.29-2`,
        });
        for (const [name, times] of samples) {
          const rounds = measured.get(name) ?? { "aurae-cri": [], containerd: [] };
          rounds[kind].push(times);
          measured.set(name, rounds);
        }
      }
      console.log(`${parallel} at once: round ${round + 1} of ${values.rounds}`);
    }
    tables.push(renderTable(parallel, measured));
  }
  const report = tables.join("\n\n");
  console.log(`\n${report}\n`);
  if (!values["no-write"]) await writeReport(join(repositoryDir, "docs", "limits.md"), report, "critest");
}

interface Benchmark {
  readonly count: number;
  readonly parallel: number;
  readonly image: string;
}

/** One run of the suite's benchmarks; milliseconds by operation. */
async function runOnce(node: Node, { count, parallel, image }: Benchmark): Promise<ReadonlyMap<string, number[]>> {
  const dir = join(outputDir, node.kind);
  await rm(dir, { recursive: true, force: true });
  await mkdir(dir, { recursive: true });
  // Several at once take the one image from each other: what containerd answers then ends the suite.
  const hasImages = parallel === 1;
  const numbers = ["containers", "pods", ...(hasImages ? ["images"] : [])].flatMap((what) => [
    `${what}Number: ${count}`,
    `${what}NumberParallel: ${parallel}`,
  ]);
  // Exceeded ones end the suite without results.
  const timeouts = ["container", "pod", "image"].map((what) => `${what}BenchmarkTimeoutSeconds: 120`);
  const paramsPath = join(dir, "params.yaml");
  await writeFile(paramsPath, [...numbers, ...timeouts, `imagePullingBenchmarkImage: ${image}`, ""].join("\n"));
  const flags = ["-benchmark", `-benchmarking-params-file=${paramsPath}`, `-benchmarking-output-dir=${dir}`];
  await runCritest(node, join(peersDir(), "bin", "critest"), flags, { dir, name: "report" });
  const samples = new Map<string, number[]>();
  for (const file of [...podFiles, ...(hasImages ? imageFiles : [])]) {
    const { operationsNames, datapoints } = dataFile.parse(JSON.parse(await readFile(join(dir, file), "utf8")));
    // The first ones may find something not pulled or not loaded yet.
    const kept = datapoints.filter(({ sampleIndex }) => sampleIndex >= parallel);
    for (const [index, name] of operationsNames.entries())
      samples.set(
        name,
        kept.map(({ operationsDurationsNs }) => (operationsDurationsNs[index] ?? Number.NaN) / 1e6),
      );
  }
  return samples;
}

/** A ratio is the median over the rounds, of which each compares two runs that followed each other. */
function renderTable(parallel: number, measured: ReadonlyMap<string, Rounds>): string {
  const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const rows = [...measured].map(([name, rounds]) => {
    const [ours, theirs] = [rounds["aurae-cri"], rounds.containerd];
    const at = (rank: number) => kinds.map((kind) => percentile(rounds[kind].flat(), rank).toFixed(1));
    const ratio = (rank: number) => {
      const ratios = ours.map((times, round) => percentile(times, rank) / percentile(theirs[round] ?? [], rank));
      return percentile(ratios, 50).toFixed(2);
    };
    return row([name, String(ours.flat().length), ...at(50), `**${ratio(50)}**`, ...at(99), ratio(99)]);
  });
  return [
    `${parallel === 1 ? "One after the other" : `${parallel} at once`}:`,
    "",
    row(["operation", "n", "aurae-cri, flat, p50 ms", "containerd, p50 ms", "ratio", "aurae-cri, p99 ms", "containerd, p99 ms", "ratio"]),
    row(["---", "--:", "--:", "--:", "--:", "--:", "--:", "--:"]),
    ...rows,
  ].join("\n");
}

await runMain(main);
