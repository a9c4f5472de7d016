import { copyFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { runCommand } from "../harness/command.ts";
import type { Node } from "../harness/node.ts";
import { peersDir } from "../harness/settings.ts";
import { mountsBelow } from "../harness/sweep.ts";
import type { Omission, SpecResult } from "./report.ts";
import { parseReport } from "./report.ts";

export interface SuiteOptions {
  /** Specs whose full name matches; undefined for all. */
  readonly focus: string | undefined;
  /** Processes; more than 1 needs the ginkgo peer. */
  readonly parallel: number;
  /** Streams over WebSocket, not SPDY. */
  readonly websocket: boolean;
}

const digestSpec = "public image with digest should be pulled and removed";
const upstreamDigest = "9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf";

const omissions: readonly Omission[] = [
  { namePart: digestSpec, reason: "the digest is a constant of the suite, and the image's bytes cannot be made again" },
];

/** Runs the suite as it is against `node`. The report and the output of the suite go to `dir`. */
export async function runSuite(node: Node, handler: string, options: SuiteOptions, dir: string): Promise<readonly SpecResult[]> {
  const { focus } = options;
  const flags = [
    `-runtime-handler=${handler}`,
    ...(options.parallel > 1 ? [`-parallel=${options.parallel}`] : []),
    ...(options.websocket ? ["-websocket-exec", "-websocket-attach", "-websocket-portforward"] : []),
    ...omissions.map(({ namePart }) => `-ginkgo.skip=${namePart}`),
    ...(focus === undefined ? [] : [`-ginkgo.focus=${focus}`]),
  ];
  const asked = omissions.filter(({ namePart }) => focus === undefined || new RegExp(focus).test(namePart));
  return parseReport(await runCritest(node, join(peersDir(), "bin", "critest"), flags, { dir, name: "report" }), asked);
}

/** Runs the one spec that is left out above, in a copy of the suite whose constant is replaced by `digest`, of an image that exists. */
export async function runDigestSpec(node: Node, digest: string, dir: string): Promise<readonly SpecResult[]> {
  const program = await readFile(join(peersDir(), "bin", "critest"));
  const at = program.indexOf(upstreamDigest);
  if (at < 0 || program.indexOf(upstreamDigest, at + 1) >= 0)
    throw new Error("critest does not hold the digest of its test image just once");
  program.write(digest.replace(/^sha256:/, ""), at);
  const path = join(node.prefix.dir, "critest-own-digest");
  await writeFile(path, program, { mode: 0o755 });
  const results = parseReport(await runCritest(node, path, [`-ginkgo.focus=${digestSpec}`], { dir, name: "report-own-digest" }), []);
  return results.map((result) => ({ ...result, name: `${result.name} (one constant changed: the digest of an image of ours)` }));
}

/** Runs critest to its end and returns ginkgo's JSON report. */
export async function runCritest(node: Node, program: string, flags: readonly string[], output: Output): Promise<string> {
  const temporary = await mkdtemp(join(node.prefix.dir, "critest-"));
  const endpoint = `unix://${node.prefix.socketPath}`;
  const reportPath = join(temporary, "report.json");
  const args = [
    `-runtime-endpoint=${endpoint}`,
    `-image-endpoint=${endpoint}`,
    ...flags,
    "-ginkgo.no-color",
    "-ginkgo.timeout=90m",
    `-ginkgo.json-report=${reportPath}`,
  ];
  try {
    const result = await runCommand(program, args, { environment: { TMPDIR: temporary } });
    await writeFile(join(output.dir, `${output.name}.log`), result.stdout + result.stderr);
    await copyFile(reportPath, join(output.dir, `${output.name}.json`)).catch((error: unknown) => {
      throw new Error(`critest wrote no report; the end of its output:\n${result.stdout.slice(-2000)}${result.stderr}`, { cause: error });
    });
    return await readFile(reportPath, "utf8");
  } finally {
    // Specs of mount propagation that fail leave bind mounts behind, and deleting below one of those deletes what it shows.
    for (const mountPoint of (await mountsBelow(temporary)).reverse()) await runCommand("umount", ["-l", mountPoint]);
    await rm(temporary, { recursive: true, force: true });
  }
}

export interface Output {
  readonly dir: string;
  readonly name: string;
}
