/**
 * microvm.ts [--pods N] [--no-write]: RunPodSandbox of a microVM under emulation, one that boots and one that goes on from a template, and between
 * them bare QEMU with the same machine and kernel printing hello, one sample of each in turn; and what an idle pod costs. The result goes into
 * docs/limits.md.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";

import { unary } from "../harness/cri-client.ts";
import { runMain } from "../harness/main.ts";
import { Node, type NodeOptions } from "../harness/node.ts";
import type { Pod, PodOptions } from "../harness/pod.ts";
import { repositoryDir } from "../harness/settings.ts";
import { makeTemplate } from "../harness/template.ts";
import { bareArguments, bootBare, makeScratch } from "./bare-boot.ts";
import { CpuAccount } from "./cpu-account.ts";
import { type Beginning, type MicrovmRound, type MicrovmSample, renderMicrovmReport } from "./microvm-report.ts";
import { writeReport } from "./report.ts";
import { measureStalled, renderStalled, type StalledTimes } from "./stalled.ts";
import { type IdleCost, idleCost, type Processes, processesOf, vmmCpuMs } from "./vm-processes.ts";

const WARM_UPS = 2;
const STALLED_ROUNDS = 50;

/** A node whose pods all begin in one way, and the account of what they cost. */
interface Bench {
  readonly node: Node;
  readonly account: CpuAccount;
  readonly beginning: Beginning;
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { pods: { type: "string", default: "20" }, "no-write": { type: "boolean", default: false } } });
  await using booting = await startNode({ config: { vm: { template: "off" } } });
  await using restoring = await startNode({ registry: booting.registry });
  const boots: Bench = { node: booting, account: await openAccount(booting), beginning: "guest-boot" };
  const restores: Bench = { node: restoring, account: await openAccount(restoring), beginning: "guest-restore" };
  await makeTemplate(restoring, podOptions(restores));

  const rounds = await measureRounds(boots, restores, Number(values.pods));
  const idle = { booted: await measureIdle(boots), restored: await measureIdle(restores) };
  const stalled = await measureStalledPods(restores);
  const report = [renderMicrovmReport(rounds, idle), renderStalled("microVM", stalled)].join("\n\n");
  console.log(`\n${report}\n`);
  if (!values["no-write"]) await writeReport(join(repositoryDir, "docs", "limits.md"), report, "microvm");
}

async function startNode(options: NodeOptions): Promise<Node> {
  const node = await Node.start({ pods: "microvm", ...options });
  try {
    await node.pull("busybox");
    return node;
  } catch (error) {
    await node[Symbol.asyncDispose]();
    throw error;
  }
}

async function openAccount(node: Node): Promise<CpuAccount> {
  const { pid } = node.daemon.process;
  if (pid === undefined) throw new Error("the daemon is not running");
  return await CpuAccount.open(node.prefix.cgroupParent, pid);
}

/** The bare boot stands between the two, next to each of them. */
async function measureRounds(boots: Bench, restores: Bench, count: number): Promise<MicrovmRound[]> {
  const scratch = join(boots.node.prefix.dir, "bare-scratch.img");
  await makeScratch(scratch);
  const rounds: MicrovmRound[] = [];
  for (let index = -WARM_UPS; index < count; index++) {
    const booted = await runPod(boots);
    const bareMs = await bootBare(bareArguments(booted.args, scratch));
    const restored = await runPod(restores);
    if (index >= 0) rounds.push({ booted: booted.sample, bareMs, restored: restored.sample });
    if (index >= 0 && (index + 1) % 5 === 0) console.log(`RunPodSandbox: ${index + 1} of ${count} rounds`);
  }
  return rounds;
}

interface Run {
  readonly sample: MicrovmSample;
  /** Of the pod's QEMU. */
  readonly args: readonly string[];
}

async function runPod(bench: Bench): Promise<Run> {
  const { node, account, beginning } = bench;
  const cpuBeforeMs = await account.usedMs();
  const begunMs = performance.now();
  await using pod = await openPod(bench);
  const wallMs = performance.now() - begunMs;
  const daemonCpuMs = (await account.usedMs()) - cpuBeforeMs;
  const processes = await processesOf(await supervisorOf(node, pod));
  const cpuMs = daemonCpuMs + (await vmmCpuMs(processes));
  const phases = await phasesOf(node, pod);
  if (!phases.has(beginning)) throw new Error(`a pod began in another way than by ${beginning}: ${[...phases.keys()].join(", ")}`);
  return { sample: { wallMs, cpuMs, phases }, args: processes.qemuArguments };
}

/** The pods' cgroup parent lies in the account: `auraed vm` is in it. QEMU has a cgroup of its own. */
function podOptions({ account }: Bench): PodOptions {
  return { linux: { cgroupParent: account.podsParent, securityContext: { namespaceOptions: { pid: 1 } } } };
}

function openPod(bench: Bench): Promise<Pod> {
  return bench.node.runPod(podOptions(bench));
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
async function measureIdle(bench: Bench): Promise<IdleCost> {
  const { node } = bench;
  await using pod = await openPod(bench);
  const container = await pod.start({ mounts: [{ hostPath: node.prefix.logsDir, containerPath: "/logs" }] });
  const meminfo = await container.shell("ls /logs > /dev/null; sleep 3; cat /proc/meminfo");
  const processes: Processes = await processesOf(await supervisorOf(node, pod));
  return await idleCost(processes, meminfo);
}

async function measureStalledPods(bench: Bench): Promise<StalledTimes> {
  await using beside = await openPod(bench);
  await using alone = await openPod(bench);
  return await measureStalled(bench.node, { beside: await beside.start(), alone: await alone.start() }, STALLED_ROUNDS);
}

await runMain(main);
