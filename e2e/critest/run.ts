/**
 * run.ts [--runtime KIND]... [--handler NAME]... [--focus REGEX] [--parallel N] [--websocket]: runs the real critest against a runtime on a prefix
 * of its own and writes a table of all specs to build/critest/. Ends with `N passed, N failed, N skipped`.
 *
 * --runtime    aurae-cri (default) or containerd; given twice, both are run
 * --handler    a runtime handler; default: the default one, and for ours aurae-flat as well
 * --focus      only specs whose full name matches
 * --parallel   critest's own option; needs the ginkgo peer
 * --websocket  exec, attach and port-forward over WebSocket, not SPDY
 */
import { cp, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { runMain } from "../harness/main.ts";
import { Node } from "../harness/node.ts";
import { takeMachineLock } from "../harness/ports.ts";
import { writeHosts } from "../harness/prefix.ts";
import { Registry } from "../harness/registry.ts";
import type { RuntimeKind } from "../harness/settings.ts";
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
      focus: { type: "string" },
      parallel: { type: "string", default: "1" },
      websocket: { type: "boolean", default: false },
    },
  });
  const options = { focus: values.focus, parallel: Number(values.parallel), websocket: values.websocket };
  const subjects = values.runtime.flatMap((kind) => subjectsOf(kind, values.handler));
  // critest has ports of its own compiled in: 12000 to 12003.
  using _ = await waitFor("another run of critest on this machine to end", () => takeMachineLock("critest"), { timeoutMs: 1_800_000 });
  await using registry = await Registry.start();
  const source = { registry, digest: await publishImages(registry) };

  const columns: Column[] = [];
  const errors: unknown[] = [];
  for (const subject of subjects) {
    await runSubject(subject, source, options, columns).catch((error: unknown) => errors.push(error));
    await writeFile(join(outputDir, "results.md"), renderTable(columns));
  }
  const totals = totalsOf(columns);
  console.log(`\nThe table is ${join(outputDir, "results.md")}`);
  for (const error of errors) console.error(error);
  // What a runtime leaves behind, or a suite that did not run, counts as a failure too.
  console.log(formatTotals({ ...totals, failed: totals.failed + errors.length }));
  process.exitCode = totals.failed + errors.length > 0 || totals.passed === 0 ? 1 : 0;
}

function subjectsOf(kind: string, handlers: readonly string[] | undefined): Subject[] {
  switch (kind) {
    case "aurae-cri":
      return (handlers ?? ["", "aurae-flat"]).map((handler) => ({ kind, handler }));
    case "containerd":
      return [{ kind, handler: "" }];
    default:
      throw new Error(`--runtime is '${kind}': want aurae-cri or containerd`);
  }
}

async function publishImages(registry: Registry): Promise<string> {
  const images = critestImages(await readParts());
  for (const image of images) await registry.push(image);
  return images.find(({ name }) => name === digestImageName)?.manifest.digest ?? "";
}

/** One run of the suite. Its column is added before the runtime is taken down, so that a leak does not hide the results. */
async function runSubject(subject: Subject, source: Source, options: SuiteOptions, columns: Column[]): Promise<void> {
  const title = subject.handler === "" ? subject.kind : `${subject.kind}, handler ${subject.handler}`;
  const dir = join(outputDir, `${subject.kind}${subject.handler === "" ? "" : `-${subject.handler}`}`);
  await rm(dir, { recursive: true, force: true });
  await mkdir(dir, { recursive: true });
  console.log(`\n=== critest on ${title}`);
  await using node = await Node.start({ kind: subject.kind, registry: source.registry });
  for (const host of upstreamHosts) await writeHosts(node.prefix, host, `server = "http://${source.registry.host}"\n`);
  try {
    const results = [...(await runSuite(node, subject.handler, options, dir))];
    if (options.focus === undefined) results.push(...(await runDigestSpec(node, source.digest, dir)));
    columns.push({ title, results });
    for (const { name, outcome } of results) {
      if (outcome.state === "failed") console.log(`failed: ${name}\n  ${outcome.message.replaceAll("\n", "\n  ")}`);
      if (outcome.state === "skipped") console.log(`skipped: ${name}: ${outcome.reason}`);
    }
    console.log(`=== ${title}: ${formatTotals(totalsOf([{ title, results }]))}`);
  } finally {
    await cp(join(node.prefix.dir, "daemon.log"), join(dir, "daemon.log"));
  }
}

await runMain(main);
