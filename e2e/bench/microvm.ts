/**
 * microvm.ts [--pods N] [--no-write]: RunPodSandbox of a microVM under emulation, beside bare QEMU with the same machine and kernel printing hello,
 * one sample of each in turn; and what an idle pod costs. The result goes into docs/limits.md.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";

import { unary } from "../harness/cri-client.ts";
import { runMain } from "../harness/main.ts";
import { Node } from "../harness/node.ts";
import type { Pod } from "../harness/pod.ts";
import { repositoryDir } from "../harness/settings.ts";
import { bareArguments, bootBare, makeScratch } from "./bare-boot.ts";
import { CpuAccount } from "./cpu-account.ts";
import { type MicrovmSample, renderMicrovmReport } from "./microvm-report.ts";
import { writeReport } from "./report.ts";
import { measureStalled, renderStalled, type StalledTimes } from "./stalled.ts";
import { type IdleCost, idleCost, type Processes, processesOf, vmmCpuMs } from "./vm-processes.ts";

const WARM_UPS = 2;
const STALLED_ROUNDS = 50;

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { pods: { type: "string", default: "20" }, "no-write": { type: "boolean", default: false } } });
  const count = Number(values.pods);
  await using node = await Node.start({ pods: "microvm" });
  await node.pull("busybox");
  const { pid } = node.daemon.process;
  if (pid === undefined) throw new Error("the daemon is not running");
  const account = await CpuAccount.open(node.prefix.cgroupParent, pid);
  const scratch = join(node.prefix.dir, "bare-scratch.img");
  await makeScratch(scratch);

  const samples: MicrovmSample[] = [];
  for (let index = -WARM_UPS; index < count; index++) {
    const { sample, args } = await runPod(node, account);
    const bareMs = await bootBare(bareArguments(args, scratch));
    if (index >= 0) samples.push({ ...sample, bareMs });
    if (index >= 0 && (index + 1) % 5 === 0) console.log(`RunPodSandbox: ${index + 1} of ${count} pairs`);
  }
  const idle = await measureIdle(node, account);
  const stalled = await measureStalledPods(node, account);
  const report = [renderMicrovmReport(samples, idle), renderStalled("microVM", stalled)].join("\n\n");
  console.log(`\n${report}\n`);
  if (!values["no-write"]) await writeReport(join(repositoryDir, "docs", "limits.md"), report, "microvm");
}

interface Run {
  readonly sample: Omit<MicrovmSample, "bareMs">;
  /** Of the pod's QEMU. */
  readonly args: readonly string[];
}

async function runPod(node: Node, account: CpuAccount): Promise<Run> {
  const cpuBeforeMs = await account.usedMs();
  const begunMs = performance.now();
  await using pod = await openPod(node, account);
  const wallMs = performance.now() - begunMs;
  const daemonCpuMs = (await account.usedMs()) - cpuBeforeMs;
  const processes = await processesOf(await supervisorOf(node, pod));
  const cpuMs = daemonCpuMs + (await vmmCpuMs(processes));
  return { sample: { wallMs, cpuMs, phases: await phasesOf(node, pod) }, args: processes.qemuArguments };
}

/** The pods' cgroup parent lies in the account: `auraed vm` is in it. QEMU has a cgroup of its own. */
function openPod(node: Node, account: CpuAccount): Promise<Pod> {
  return node.runPod({ linux: { cgroupParent: account.podsParent, securityContext: { namespaceOptions: { pid: 1 } } } });
}

async function verbose(
  node: Node,
  pod: Pod,
): Promise<{ supervisorPid: number; timeline: readonly { name: string; durationMs: number }[] }> {
  const { runtime } = node.clients;
  const { info } = await unary(runtime, runtime.podSandboxStatus, { podSandboxId: pod.id, verbose: true });
  return JSON.parse(info["info"] ?? "{}");
}

async function supervisorOf(node: Node, pod: Pod): Promise<number> {
  return (await verbose(node, pod)).supervisorPid;
}

async function phasesOf(node: Node, pod: Pod): Promise<ReadonlyMap<string, number>> {
  return new Map((await verbose(node, pod)).timeline.map(({ name, durationMs }) => [name, durationMs]));
}

/** A pod with a sleeping container and one volume, so that the server of volumes runs too. */
async function measureIdle(node: Node, account: CpuAccount): Promise<IdleCost> {
  await using pod = await openPod(node, account);
  const container = await pod.start({ mounts: [{ hostPath: node.prefix.logsDir, containerPath: "/logs" }] });
  const meminfo = await container.shell("ls /logs > /dev/null; sleep 3; cat /proc/meminfo");
  const processes: Processes = await processesOf(await supervisorOf(node, pod));
  return await idleCost(processes, meminfo);
}

async function measureStalledPods(node: Node, account: CpuAccount): Promise<StalledTimes> {
  await using beside = await openPod(node, account);
  await using alone = await openPod(node, account);
  return await measureStalled(node, { beside: await beside.start(), alone: await alone.start() }, STALLED_ROUNDS);
}

await runMain(main);
