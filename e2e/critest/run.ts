/**
 * run.ts [--runtime KIND]... [--handler NAME]... [--focus REGEX] [--parallel N]: runs the real critest, unchanged, against a runtime on a prefix
 * of its own and writes a table of all specs to build/critest/. Ends with `N passed, N failed, N skipped`.
 *
 * --runtime   aurae-cri (default) or containerd; given twice, both are run
 * --handler   a runtime handler; default: the default one, and for ours aurae-flat as well
 * --focus     only specs whose full name matches
 * --parallel  as critest's own option; needs the ginkgo peer
 */
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { runCommand } from "../harness/command.ts";
import { runMain } from "../harness/main.ts";
import { Node } from "../harness/node.ts";
import { takeMachineLock } from "../harness/ports.ts";
import { writeHosts } from "../harness/prefix.ts";
import { Registry } from "../harness/registry.ts";
import type { RuntimeKind } from "../harness/settings.ts";
import { peersDir, repositoryDir } from "../harness/settings.ts";
import { mountsBelow } from "../harness/sweep.ts";
import { waitFor } from "../harness/wait.ts";
import { critestImages, upstreamHosts } from "./images/images.ts";
import { readParts } from "./images/parts.ts";
import type { Column, Omission } from "./report.ts";
import { formatTotals, parseReport, renderTable, totalsOf } from "./report.ts";

const outputDir = join(repositoryDir, "build", "critest");

const omissions: readonly Omission[] = [
  {
    namePart: "public image with digest should be pulled and removed",
    reason: "the digest is a constant of the suite, and the image's bytes cannot be made again",
  },
];

interface Options {
  readonly focus: string | undefined;
  readonly parallel: number;
}

interface Subject {
  readonly kind: RuntimeKind;
  readonly handler: string;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      runtime: { type: "string", multiple: true, default: ["aurae-cri"] },
      handler: { type: "string", multiple: true },
      focus: { type: "string" },
      parallel: { type: "string", default: "1" },
    },
  });
  const options = { focus: values.focus, parallel: Number(values.parallel) };
  const subjects = values.runtime.flatMap((kind) => subjectsOf(kind, values.handler));
  // critest has ports of its own compiled in: 12000 to 12003.
  using _ = await waitFor("another run of critest on this machine to end", () => takeMachineLock("critest"), { timeoutMs: 1_800_000 });
  await using registry = await Registry.start();
  for (const image of critestImages(await readParts())) await registry.push(image);

  const columns: Column[] = [];
  const errors: unknown[] = [];
  for (const subject of subjects) {
    await runSubject(subject, registry, options, columns).catch((error: unknown) => errors.push(error));
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

/** One run of the suite. Its column is added before the runtime is taken down, so that a leak does not hide the results. */
async function runSubject(subject: Subject, registry: Registry, options: Options, columns: Column[]): Promise<void> {
  const title = subject.handler === "" ? subject.kind : `${subject.kind}, handler ${subject.handler}`;
  const dir = join(outputDir, `${subject.kind}${subject.handler === "" ? "" : `-${subject.handler}`}`);
  await rm(dir, { recursive: true, force: true });
  await mkdir(dir, { recursive: true });
  console.log(`\n=== critest on ${title}`);
  await using node = await Node.start({ kind: subject.kind, registry });
  for (const host of upstreamHosts) await writeHosts(node.prefix, host, `server = "http://${registry.host}"\n`);
  try {
    const results = parseReport(await runCritest(node, subject, options, dir), omissions);
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

/** Runs the suite to its end and returns ginkgo's JSON report. Its output goes to `output.log` in `dir`. */
async function runCritest(node: Node, subject: Subject, options: Options, dir: string): Promise<string> {
  const temporary = await mkdtemp(join(node.prefix.dir, "critest-"));
  const endpoint = `unix://${node.prefix.socketPath}`;
  const args = [
    `-runtime-endpoint=${endpoint}`,
    `-image-endpoint=${endpoint}`,
    `-runtime-handler=${subject.handler}`,
    ...(options.parallel > 1 ? [`-parallel=${options.parallel}`] : []),
    ...omissions.map(({ namePart }) => `-ginkgo.skip=${namePart}`),
    ...(options.focus === undefined ? [] : [`-ginkgo.focus=${options.focus}`]),
    "-ginkgo.no-color",
    "-ginkgo.timeout=30m",
    `-ginkgo.json-report=${join(dir, "report.json")}`,
  ];
  try {
    const result = await runCommand(join(peersDir(), "bin", "critest"), args, { environment: { TMPDIR: temporary } });
    await writeFile(join(dir, "output.log"), result.stdout + result.stderr);
    return await readFile(join(dir, "report.json"), "utf8").catch((error: unknown) => {
      throw new Error(`critest wrote no report; the end of its output:\n${result.stdout.slice(-2000)}${result.stderr}`, { cause: error });
    });
  } finally {
    // Specs of mount propagation that fail leave bind mounts behind, and deleting below one of those deletes what it shows.
    for (const mountPoint of (await mountsBelow(temporary)).reverse()) await runCommand("umount", ["-l", mountPoint]);
    await rm(temporary, { recursive: true, force: true });
  }
}

await runMain(main);
