import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";

import { status } from "@grpc/grpc-js";

import type { StatusResponse } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { runCommand } from "../harness/command.ts";
import { unary } from "../harness/cri-client.ts";
import { daemonLog } from "../harness/daemon-log.ts";
import { freePort } from "../harness/ports.ts";
import { runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const skip = runtimeUnderTest() === "containerd" ? "about our microVMs" : false;
const metricsPort = await freePort();
const node = useNode({
  pods: "both",
  config: { vm: { accelerator: "auto" }, placement: { default: "prefer-vm" }, metrics: { port: metricsPort } },
});
/** A device that opens proves nothing: the guest's trial boot does. */
const hasKvm = existsSync("/dev/kvm");
/** What the verdict is about on this host. */
const verdict = hasKvm
  ? /a trial boot of the guest \(Linux .*, QEMU .*, kvm\) (?:ended|did not answer).*check --full/
  : /no KVM on this node: \/dev\/kvm cannot be opened/;

async function nodeStatus(): Promise<StatusResponse> {
  const { runtime } = node().clients;
  return await unary(runtime, runtime.status, { verbose: false });
}

async function virtualization() {
  const condition = (await nodeStatus()).status?.conditions.find(({ type }) => type === "VirtualizationAvailable");
  assert.ok(condition !== undefined);
  return condition;
}

/** Whether the test goes on: it is about a node that cannot virtualize. */
async function cannotVirtualize(t: TestContext): Promise<boolean> {
  const { status: available, message } = await waitFor("the verdict", async () => {
    const condition = await virtualization();
    return condition.reason === "TrialBootUnderWay" ? undefined : condition;
  });
  if (available) t.skip(`this host's KVM boots guests: ${message}`);
  return !available;
}

/** A command of ours with the flags of the node's daemon. */
async function ours(command: string, ...args: readonly string[]): Promise<string> {
  const { program, args: daemonArgs } = node().command;
  const { exitCode, stdout, stderr } = await runCommand(program, [command, ...args, ...daemonArgs.slice(1)]);
  assert.equal(exitCode, 0, `${stdout}${stderr}`);
  return stdout;
}

async function metric(series: string): Promise<number | undefined> {
  const text = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
  const line = text.split("\n").find((candidate) => candidate.startsWith(`${series} `));
  return line === undefined ? undefined : Number(line.slice(series.length));
}

test("`auto` knows within 10 s of the daemon's start that no guest boots here, and says why", { skip }, async (t) => {
  if (!(await cannotVirtualize(t))) return;
  const [start, ...entries] = await daemonLog(node().prefix);
  const told = entries.find(({ message }) => message === "microVMs are not available");
  const tookMs = Date.parse(told?.time ?? "") - Date.parse(start?.time ?? "");
  t.diagnostic(`the verdict came ${tookMs} ms after the daemon's start: ${told?.detail}`);
  assert.ok(tookMs < 10_000, `${tookMs} ms`);
  assert.match(told?.detail ?? "", verdict);
  const { reason, message } = await virtualization();
  assert.equal(reason, "NoVirtualization");
  assert.match(message, verdict);
  assert.equal(await metric("aurae_cri_virtualization_available"), 0);
  const handlers = (await nodeStatus()).runtimeHandlers.map(({ name }) => name);
  assert.deepEqual(handlers.toSorted(), ["", "aurae", "aurae-flat"], "no handler is promised that cannot serve");
});

test("pods run flat, and the reason is wherever an operator looks", { skip }, async (t) => {
  if (!(await cannotVirtualize(t))) return;
  const series = 'aurae_cri_pods_placed_total{mode="flat",reason="NoVirtualization",handler=""}';
  const before = (await metric(series)) ?? 0;
  await using pod = await node().runPod();
  const container = await pod.start();
  assert.equal((await container.exec(["/bin/true"])).exitCode, 0);
  const { runtime } = node().clients;
  const { info } = await unary(runtime, runtime.podSandboxStatus, { podSandboxId: pod.id, verbose: true });
  const shown = JSON.parse(info["info"] ?? "") as { isolation: string; reason: string; message: string };
  assert.deepEqual([shown.isolation, shown.reason], ["flat", "NoVirtualization"]);
  assert.match(shown.message, verdict);
  const why = await ours("why", pod.id);
  assert.match(why, /^isolation +flat$/m);
  assert.match(why, /^reason +NoVirtualization/m);
  assert.match(why, verdict);
  const ready = (await daemonLog(node().prefix)).find(({ message, podId }) => message === "pod sandbox is ready" && podId === pod.id);
  assert.deepEqual([ready?.mode, ready?.reason], ["flat", "NoVirtualization"]);
  assert.equal(await metric(series), before + 1);
});

test("aurae-vm is refused with what to do, and leaves nothing", { skip }, async (t) => {
  if (!(await cannotVirtualize(t))) return;
  const refused = node().runPod({ runtimeHandler: "aurae-vm" });
  const message = new RegExp(`runtime_handler aurae-vm needs virtualization: .*${verdict.source}.*runtimeClassName aurae-flat`, "s");
  await assertRefused(node().kind, refused, { code: status.FAILED_PRECONDITION, message });
  assert.equal(await metric('aurae_cri_pods_placed_total{mode="refused",reason="RequiresVirtualization",handler="aurae-vm"}'), 1);
  const { runtime } = node().clients;
  assert.deepEqual((await unary(runtime, runtime.listPodSandbox, { filter: undefined })).items, []);
});

interface Check {
  readonly name: string;
  readonly status: string;
  readonly found: string;
  readonly fix?: string;
  readonly detail?: string;
}

test("`check` tells the verdict, the guest's last words, and the command that tries again", { skip }, async (t) => {
  if (!(await cannotVirtualize(t))) return;
  const { checks } = JSON.parse(await ours("check", "--json")) as { checks: readonly Check[] };
  const named = (name: string) => checks.find((check) => check.name === name);
  assert.equal(named("QEMU")?.status, "ok", JSON.stringify(named("QEMU")));
  assert.equal(named("guest files")?.status, "ok", JSON.stringify(named("guest files")));
  assert.equal(named("/dev/kvm")?.status, hasKvm ? "ok" : "warn");
  const found = named("virtualization");
  assert.equal(found?.status, "warn");
  assert.match(found?.found ?? "", verdict);
  if (!hasKvm) return;
  assert.match(found?.found ?? "", /^by the kept verdict: /);
  assert.match(found?.fix ?? "", /aurae-cri check --full/);
  const { outcome } = await keptVerdict();
  assert.equal(found?.detail ?? "", outcome.consoleTail);
  const text = await ours("check");
  for (const line of outcome.consoleTail.split("\n")) assert.ok(text.includes(line), line);
});

interface KeptVerdict {
  readonly triedAtMs: number;
  readonly outcome: { readonly booted: boolean; readonly consoleTail: string };
}

async function keptVerdict(): Promise<KeptVerdict> {
  return JSON.parse(await readFile(join(node().prefix.rootDir, "trial-boot.json"), "utf8")) as KeptVerdict;
}

test("a restart knows the kept verdict at once, and boots nothing", { skip }, async (t) => {
  if (!(await cannotVirtualize(t))) return;
  if (!hasKvm) return t.skip("no /dev/kvm, so no trial boot whose verdict could be kept");
  const before = await stat(join(node().prefix.rootDir, "trial-boot.json"));
  const kept = await keptVerdict();
  for (const end of [() => node().daemon.stop(), () => node().kill9()]) {
    await end();
    await node().startDaemon();
    await using pod = await node().runPod();
    const [start, ...entries] = await daemonLog(node().prefix);
    const told = entries.find(({ message }) => message === "microVMs are not available");
    assert.ok(Date.parse(told?.time ?? "") - Date.parse(start?.time ?? "") < 5_000, JSON.stringify(told));
    assert.equal(entries.find(({ podId, message }) => podId === pod.id && message === "pod sandbox is ready")?.reason, "NoVirtualization");
    assert.equal((await stat(join(node().prefix.rootDir, "trial-boot.json"))).mtimeMs, before.mtimeMs);
  }
  assert.deepEqual(await keptVerdict(), kept);
});
