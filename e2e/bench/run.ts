/**
 * run.ts [--pods N] [--execs N] [--forwards N] [--subject KIND] [--peer KIND] [--no-write]: compares two runtimes in one run, one sample of each in turn, and
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
import type { Forwarded, Measured } from "./report.ts";
import { renderForwards, renderReport, writeReport } from "./report.ts";
import { measureStalled, renderStalled } from "./stalled.ts";
import type { Sample } from "./statistics.ts";
import { compareSamples } from "./statistics.ts";

const warmUps = 3;
const FORWARD_MIB = 256;
const names: Readonly<Record<RuntimeKind, string>> = { "aurae-cri": "aurae-cri, flat", containerd: "containerd 2.4.2, runc 1.5.2" };

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      pods: { type: "string", default: "40" },
      execs: { type: "string", default: "200" },
      forwards: { type: "string", default: "20" },
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
  const { execSyncs, execs, stalled } = await measureExecs(Number(values.execs), subject, peer);
  const forwards = await measureForwards(Number(values.forwards), subject, peer);
  const measured: Measured[] = [
    { name: "Run + Create + Start of a pod", goal: 0.8, comparison: compareSamples(pods) },
    { name: "ExecSync `/bin/true`", goal: 0.7, comparison: compareSamples(execSyncs) },
    { name: "Exec `/bin/true`, to its exit status", comparison: compareSamples(execs) },
  ];
  const report = [
    renderReport(names[subjectKind], names[peerKind], measured),
    renderForwards(names[subjectKind], names[peerKind], forwards),
    renderStalled("flat", stalled),
  ].join("\n\n");
  console.log(`\n${report}\n`);
  if (!values["no-write"]) await writeReport(join(repositoryDir, "docs", "limits.md"), report);
}

async function measureExecs(count: number, subject: Contestant, peer: Contestant) {
  await using subjectTarget = await subject.openExec();
  await using peerTarget = await peer.openExec();
  const execSyncs = await interleave(
    count,
    "ExecSync",
    () => subjectTarget.execSync(),
    () => peerTarget.execSync(),
  );
  const execs = await interleave(
    count,
    "Exec",
    () => subjectTarget.exec(),
    () => peerTarget.exec(),
  );
  await using other = await subject.openExec();
  const stalled = await measureStalled(subject.node, { beside: other.container, alone: subjectTarget.container }, count);
  return { execSyncs, execs, stalled };
}

async function measureForwards(count: number, subject: Contestant, peer: Contestant): Promise<Forwarded[]> {
  await using ours = await subject.openForward(FORWARD_MIB);
  await using theirs = await peer.openForward(FORWARD_MIB);
  await using relay = await ours.target.startRelay();
  const results: Forwarded[] = [];
  for (const direction of ["from the pod", "to the pod"] as const) {
    const relayMs: number[] = [];
    const pairs = await interleave(
      count,
      `port-forward ${direction}`,
      async () => {
        const begunMs = performance.now();
        await ours.target.relay(direction, relay);
        relayMs.push(performance.now() - begunMs);
        return await ours.forward(direction);
      },
      () => theirs.forward(direction),
    );
    const [subjects, peers] = [pairs.map((pair) => pair.subject), pairs.map((pair) => pair.peer)];
    results.push({ direction, sizeMib: FORWARD_MIB, subject: subjects, peer: peers, relayMs: relayMs.slice(warmUps) });
  }
  return results;
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
