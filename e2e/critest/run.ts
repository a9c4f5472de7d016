/**
 * run.ts [--runtime KIND]... [--handler NAME]... [--pods MODE] [--focus REGEX] [--parallel N] [--websocket] [--repeat N]: runs the real critest
 * against a runtime on a prefix of its own and writes a table of all specs to build/critest/. Ends with `N passed, N failed, N skipped`.
 *
 * --runtime    aurae-cri (default) or containerd; given twice, both are run
 * --handler    a runtime handler; default: the default one, and for ours aurae-flat as well
 * --pods       where ours run: flat (default), microvm or both; a microVM is emulated
 * --focus      only specs whose full name matches
 * --parallel   critest's own option; needs the ginkgo peer
 * --websocket  exec, attach and port-forward over WebSocket, not SPDY
 * --repeat     so many runs, each on a prefix of its own
 */
import { cp, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { runMain } from "../harness/main.ts";
import { Node } from "../harness/node.ts";
import { takeMachineLock } from "../harness/ports.ts";
import { writeHosts } from "../harness/prefix.ts";
import { Registry } from "../harness/registry.ts";
import type { PodMode, RuntimeKind } from "../harness/settings.ts";
import { repositoryDir } from "../harness/settings.ts";
import { waitFor } from "../harness/wait.ts";
import { critestImages, digestImageName, upstreamHosts } from "./images/images.ts";
import { readParts } from "./images/parts.ts";
import type { Column } from "./report.ts";
import { formatTotals, renderTable, totalsOf } from "./report.ts";
import type { SuiteOptions } from "./suite.ts";
import { runDigestSpec, runSuite } from "./suite.ts";

const outputDir = join(repositoryDir, "build", "critest");

interface Subject {
  readonly kind: RuntimeKind;
  readonly handler: string;
  readonly pods: PodMode;
  /** Words for the title that tell it from the other runs. */
  readonly run: readonly string[];
}

/** A registry with the suite's images. */
interface Source {
  readonly registry: Registry;
  /** Of the image that stands for the one that the suite knows by digest. */
  readonly digest: string;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      runtime: { type: "string", multiple: true, default: ["aurae-cri"] },
      handler: { type: "string", multiple: true },
      pods: { type: "string", default: "flat" },
      focus: { type: "string" },
      parallel: { type: "string", default: "1" },
      websocket: { type: "boolean", default: false },
      repeat: { type: "string", default: "1" },
    },
  });
  const options = { focus: values.focus, parallel: Number(values.parallel), websocket: values.websocket };
  const pods = parsePods(values.pods);
  const runs = Array.from({ length: Number(values.repeat) }, (_, index) => (index === 0 ? [] : [`run ${index + 1}`]));
  const subjects = runs.flatMap((run) => values.runtime.flatMap((kind) => subjectsOf(kind, values.handler, { pods, run })));
  const tablePath = join(outputDir, `${fileName(["results", ...wordsOf(pods, options)])}.md`);
  // critest has ports of its own compiled in: 12000 to 12003.
  using _ = await waitFor("another run of critest on this machine to end", () => takeMachineLock("critest"), { timeoutMs: 1_800_000 });
  await using registry = await Registry.start();
  const source = { registry, digest: await publishImages(registry) };

  const columns: Column[] = [];
  const errors: unknown[] = [];
  for (const subject of subjects) {
    await runSubject(subject, source, options, columns).catch((error: unknown) => errors.push(error));
    await writeFile(tablePath, renderTable(columns));
  }
  const totals = totalsOf(columns);
  console.log(`\nThe table is ${tablePath}`);
  for (const error of errors) console.error(error);
  // What a runtime leaves behind, or a suite that did not run, counts as a failure too.
  console.log(formatTotals({ ...totals, failed: totals.failed + errors.length }));
  process.exitCode = totals.failed + errors.length > 0 || totals.passed === 0 ? 1 : 0;
}

function subjectsOf(kind: string, handlers: readonly string[] | undefined, more: Pick<Subject, "pods" | "run">): Subject[] {
  switch (kind) {
    case "aurae-cri":
      return (handlers ?? ["", "aurae-flat"]).map((handler) => ({ kind, handler, ...more }));
    case "containerd":
      return [{ kind, handler: "", ...more }];
    default:
      throw new Error(`--runtime is '${kind}': want aurae-cri or containerd`);
  }
}

function parsePods(text: string): PodMode {
  if (text === "flat" || text === "microvm" || text === "both") return text;
  throw new Error(`--pods is '${text}': want flat, microvm or both`);
}

async function publishImages(registry: Registry): Promise<string> {
  const images = critestImages(await readParts());
  for (const image of images) await registry.push(image);
  return images.find(({ name }) => name === digestImageName)?.manifest.digest ?? "";
}

/** One run of the suite. Its column is added before the runtime is taken down, so that a leak does not hide the results. */
async function runSubject(subject: Subject, source: Source, options: SuiteOptions, columns: Column[]): Promise<void> {
  const { kind, handler, pods, run } = subject;
  const words = [kind, ...(handler === "" ? [] : [`handler ${handler}`]), ...wordsOf(pods, options), ...run];
  const title = words.join(", ");
  const dir = join(outputDir, fileName(words));
  await rm(dir, { recursive: true, force: true });
  await mkdir(dir, { recursive: true });
  console.log(`\n=== critest on ${title}`);
  await using node = await Node.start({ kind, pods, registry: source.registry });
  for (const host of upstreamHosts) await writeHosts(node.prefix, host, `server = "http://${source.registry.host}"\n`);
  try {
    const results = [...(await runSuite(node, handler, options, dir))];
    if (options.focus === undefined) results.push(...(await runDigestSpec(node, source.digest, dir)));
    columns.push({ title, results });
    for (const { name, outcome } of results) {
      if (outcome.state === "failed") console.log(`failed: ${name}\n  ${outcome.message.replaceAll("\n", "\n  ")}`);
      if ("reason" in outcome) console.log(`${outcome.state}: ${name}: ${outcome.reason}`);
    }
    console.log(`=== ${title}: ${formatTotals(totalsOf([{ title, results }]))}`);
  } finally {
    await cp(join(node.prefix.dir, "daemon.log"), join(dir, "daemon.log"));
  }
}

/** What is not usual about a run. */
function wordsOf(pods: PodMode, { parallel, websocket }: SuiteOptions): string[] {
  return [
    ...(pods === "flat" ? [] : [`pods ${pods}`]),
    ...(parallel > 1 ? [`${parallel} at once`] : []),
    ...(websocket ? ["WebSocket"] : []),
  ];
}

function fileName(words: readonly string[]): string {
  return words.join("-").replaceAll(" ", "-");
}

await runMain(main);
