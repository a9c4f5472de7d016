/**
 * test.ts [--name PATTERN] SUITE|FILE...: runs the suites `unit` (TypeScript, then Rust), `e2e`, `smoke`, `soak` and `kubelet`, or test files by their path, prints
 * what was skipped and why, and closes with
 * `N passed, N failed, N skipped`. With `--name` files run only tests whose name matches. A suite that runs no test has failed: silence is how a broken glob looks.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { globSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { parseArgs } from "node:util";

import { type Counts, countCargoLine, noCounts, sum, verdict } from "./test-counts.ts";

const root = join(import.meta.dirname, "..");
const minuteMs = 60_000;
const longMs = 90 * minuteMs;

interface Suite {
  readonly name: string;
  readonly run: () => Promise<Counts>;
}

const suites: Readonly<Record<string, readonly Suite[]>> = {
  unit: [
    {
      name: "unit, TypeScript",
      run: () =>
        runNodeTests(
          [
            "src/**/*.test.ts",
            "api/**/*.test.ts",
            "guest/**/*.test.ts",
            "tools/**/*.test.ts",
            "e2e/harness/**/*.test.ts",
            "e2e/critest/**/*.test.ts",
          ],
          { concurrency: 2 },
        ),
    },
    { name: "unit, Rust", run: runCargoTests },
  ],
  // One at a time: scenarios measure themselves against crictl's default timeouts.
  e2e: [{ name: "end to end", run: () => runNodeTests(["e2e/scenarios/**/*.e2e.ts"]) }],
  // What CI repeats on microVMs: the whole session, and the daemon killed at every point of it.
  smoke: [{ name: "smoke", run: () => runNodeTests(["e2e/scenarios/{crictl-session,failpoints}.e2e.ts"]) }],
  // With AURAE_CRI_E2E_SOAK=1, what is promised of streaming in numbers.
  soak: [{ name: "soak", run: () => runNodeTests(["e2e/scenarios/streaming-load.e2e.ts"], { timeoutMs: 120 * minuteMs }) }],
  // Flat pods and microVMs beside each other: most of the time a node only waits. An hour's watch, when that is asked for, and what is around it.
  kubelet: [{ name: "kubelet", run: () => runNodeTests(["e2e/kubelet/*.e2e.ts"], { concurrency: 2, timeoutMs: longMs }) }],
};

interface NodeTestOptions {
  /** Default 1. */
  readonly concurrency?: number;
  /** Default 20 minutes. */
  readonly timeoutMs?: number;
  /** Of a test's name, as `node --test-name-pattern`. */
  readonly name?: string;
}

async function runNodeTests(patterns: readonly string[], options: NodeTestOptions = {}): Promise<Counts> {
  const { concurrency = 1, timeoutMs = 20 * minuteMs, name: testName } = options;
  const files = globSync(patterns, { cwd: root, exclude: ["api/gen/**"] }).sort();
  if (files.length === 0) return noCounts;
  const events = run({
    files: files.map((file) => join(root, file)),
    cwd: root,
    concurrency,
    timeout: timeoutMs,
    ...(testName === undefined ? {} : { testNamePatterns: [testName] }),
  });
  const counts = { passed: 0, failed: 0, skipped: 0, skips: [] as string[] };
  events.on("test:summary", ({ file, success, counts: total }) => {
    if (file !== undefined) return;
    counts.passed = total.passed;
    counts.skipped = total.skipped + total.todo;
    counts.failed = Math.max(total.tests - counts.passed - counts.skipped, success ? 0 : 1);
  });
  events.on("test:pass", ({ name, skip }) => {
    if (skip !== undefined) counts.skips.push(`${name}: ${typeof skip === "string" ? skip : "no reason given"}`);
  });
  const text = events.compose(new spec());
  text.pipe(process.stdout, { end: false });
  await once(text, "end");
  return counts;
}

async function runCargoTests(): Promise<Counts> {
  const child = spawn(join(root, "tools/build-auraed.sh"), ["test", "--locked", "--no-fail-fast", "--profile", "quick"], {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const closed = once(child, "close");
  let counts = noCounts;
  for await (const line of createInterface({ input: child.stdout })) {
    console.log(line);
    counts = countCargoLine(counts, line);
  }
  const [code] = await closed;
  // A crate that does not compile, or a test binary that dies, prints no result line.
  return code === 0 || counts.failed > 0 ? counts : { ...counts, failed: 1 };
}

async function main(args: string[]): Promise<void> {
  const { values, positionals: names } = parseArgs({ args, options: { name: { type: "string" } }, allowPositionals: true });
  const options = { timeoutMs: longMs, ...(values.name === undefined ? {} : { name: values.name }) };
  let total = noCounts;
  for (const name of names) {
    const members = name.endsWith(".ts") ? [{ name, run: () => runNodeTests([name], options) }] : suites[name];
    if (members === undefined) throw new Error(`unknown suite '${name}'; known: ${Object.keys(suites).join(", ")}`);
    for (const suite of members) {
      const startMs = performance.now();
      console.log(`\n=== ${suite.name}`);
      const counts = verdict(await suite.run());
      for (const skip of counts.skips) console.log(`skipped: ${skip}`);
      const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
      console.log(
        `=== ${suite.name}: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped in ${seconds} s${counts.ranNone ? " (ran no test)" : ""}`,
      );
      total = sum(total, counts);
    }
  }
  console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  process.exitCode = total.failed > 0 ? 1 : 0;
}

await main(process.argv.slice(2));
