/**
 * run.ts [--pods N] [--execs N] [--subject KIND] [--peer KIND] [--no-write]: compares two runtimes in one run, one sample of each in turn, and
 * writes the result into docs/limits.md. With the same kind on both sides it measures its own noise.
 */

import { join } from "node:path";
import { parseArgs } from "node:util";
import { runMain } from "../harness/main.ts";
import { Node } from "../harness/node.ts";
import { Registry } from "../harness/registry.ts";
import type { RuntimeKind } from "../harness/settings.ts";
import { repositoryDir } from "../harness/settings.ts";
import { Contestant } from "./measure.ts";
import type { Measured } from "./report.ts";
import { renderReport, writeReport } from "./report.ts";
import type { Sample } from "./statistics.ts";
import { compareSamples } from "./statistics.ts";

const warmUps = 3;
const names: Readonly<Record<RuntimeKind, string>> = { "aurae-cri": "aurae-cri, flat", containerd: "containerd 2.4.2, runc 1.5.2" };

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      pods: { type: "string", default: "40" },
      execs: { type: "string", default: "200" },
      subject: { type: "string", default: "aurae-cri" },
      peer: { type: "string", default: "containerd" },
      "no-write": { type: "boolean", default: false },
    },
  });
  const [subjectKind, peerKind] = [kindOf(values.subject), kindOf(values.peer)];
  await using registry = await Registry.start();
  await using subjectNode = await Node.start({ kind: subjectKind, registry });
  await using peerNode = await Node.start({ kind: peerKind, registry });
  for (const node of [subjectNode, peerNode]) await node.pull("busybox");
  const [subject, peer] = [await Contestant.create(subjectNode), await Contestant.create(peerNode)];

  const pods = await interleave(
    Number(values.pods),
    "Run + Create + Start",
    () => subject.startPod(),
    () => peer.startPod(),
  );
  const execs = await execPairs(Number(values.execs), subject, peer);
  const measured: Measured[] = [
    { name: "Run + Create + Start of a pod", goal: 0.8, comparison: compareSamples(pods) },
    { name: "ExecSync `/bin/true`", goal: 0.9, comparison: compareSamples(execs) },
  ];
  const report = renderReport(names[subjectKind], names[peerKind], measured);
  console.log(`\n${report}\n`);
  if (!values["no-write"]) await writeReport(join(repositoryDir, "docs", "limits.md"), report);
}

async function execPairs(count: number, subject: Contestant, peer: Contestant): Promise<Pair[]> {
  await using subjectTarget = await subject.openExec();
  await using peerTarget = await peer.openExec();
  return await interleave(
    count,
    "ExecSync",
    () => subjectTarget.exec(),
    () => peerTarget.exec(),
  );
}

interface Pair {
  readonly subject: Sample;
  readonly peer: Sample;
}

/** `count` pairs after some that are thrown away; who is first alternates. */
async function interleave(count: number, label: string, subject: () => Promise<Sample>, peer: () => Promise<Sample>): Promise<Pair[]> {
  const pairs: Pair[] = [];
  for (let index = -warmUps; index < count; index++) {
    let pair: Pair;
    if (index % 2 === 0) {
      pair = { subject: await subject(), peer: await peer() };
    } else {
      const first = await peer();
      pair = { subject: await subject(), peer: first };
    }
    if (index >= 0) pairs.push(pair);
    if (index >= 0 && (index + 1) % 20 === 0) console.log(`${label}: ${index + 1} of ${count} pairs`);
  }
  return pairs;
}

function kindOf(value: string): RuntimeKind {
  if (value === "aurae-cri" || value === "containerd") return value;
  throw new Error(`'${value}' is no runtime: want aurae-cri or containerd`);
}

await runMain(main);
