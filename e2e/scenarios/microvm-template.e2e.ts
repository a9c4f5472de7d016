import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, open, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { beforeEach, test } from "node:test";

import { status } from "@grpc/grpc-js";

import { ContainerState, PodSandboxState } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { mustRun } from "../harness/command.ts";
import type { Container } from "../harness/container.ts";
import { unary } from "../harness/cri-client.ts";
import { daemonLog } from "../harness/daemon-log.ts";
import { leases } from "../harness/leaks.ts";
import { argumentsOf, machineOf } from "../harness/machine.ts";
import { Pod, type PodOptions, sandboxConfig } from "../harness/pod.ts";
import { runtimeUnderTest } from "../harness/settings.ts";
import { processesOf } from "../harness/sweep.ts";
import { findTemplate, foreignTemplate, makeTemplate, templatesDir } from "../harness/template.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const skip = runtimeUnderTest() === "containerd" ? "about our microVMs" : false;
const node = useNode({ pods: "both" });

const MADE = "microVMs start from a template";
const dir = () => templatesDir(node().prefix);

beforeEach(async () => {
  if (!node().daemon.isRunning) await node().startDaemon();
});

async function runInVm(options: PodOptions = {}): Promise<Pod> {
  return await node().runPod({ runtimeHandler: "aurae-vm", ...options });
}

/** How the pod's machine began, by its timeline. */
async function beginningOf(pod: Pod): Promise<string | undefined> {
  const { runtime } = node().clients;
  const { info } = await unary(runtime, runtime.podSandboxStatus, { podSandboxId: pod.id, verbose: true });
  const { timeline } = JSON.parse(info["info"] ?? "") as { readonly timeline: readonly { readonly name: string }[] };
  const beginnings = timeline.map(({ name }) => name).filter((name) => name === "guest-boot" || name === "guest-restore");
  assert.equal(beginnings.length, 1, JSON.stringify(timeline));
  return beginnings[0];
}

async function template(): Promise<string> {
  return await makeTemplate(node(), { runtimeHandler: "aurae-vm" });
}

/** Processes that make a template. */
async function makers(): Promise<number[]> {
  const found: number[] = [];
  for (const pid of await processesOf(node().prefix)) {
    const args = await argumentsOf(pid).catch(() => []);
    if (args.some((arg) => arg.includes(`${dir()}/`))) found.push(pid);
  }
  return found;
}

test("the first microVM boots, the next one goes on from the template that was made behind it", { skip }, async () => {
  await using first = await runInVm();
  assert.equal(await beginningOf(first), "guest-boot");
  const path = await waitFor("the template", () => findTemplate(node().prefix), { timeoutMs: 40_000 });
  const told = await waitFor("the daemon to tell", async () => (await daemonLog(node().prefix)).find(({ message }) => message === MADE));
  assert.equal(told.path, path);
  assert.deepEqual(await readdir(dir()), [basename(path)], "nothing else is left of its making");
  assert.deepEqual(await makers(), []);
  assert.equal((await stat(path)).mode & 0o777, 0o600, "a guest's memory is for nobody else to read");
  assert.equal((await stat(dir())).mode & 0o777, 0o700);
  await using next = await runInVm();
  assert.equal(await beginningOf(next), "guest-restore");
});

/** What a guest says of itself, and the host's clock around that. */
interface Looks {
  /** What no two pods may share. */
  readonly own: readonly string[];
  readonly hostname: string;
  readonly mac: string;
  readonly address: string;
  readonly uptimeSec: number;
}

const lookAround = [
  "cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid",
  // The second is read as getrandom(2) does it, with the same generator of the kernel.
  "head -c 24 /dev/urandom | base64; head -c 24 /dev/random | base64",
  "hostname; cat /sys/class/net/eth0/address",
  "ip -4 addr show dev eth0 | sed -n 's|.* inet \\([^/]*\\)/.*|\\1|p'",
  "cut -d' ' -f1 /proc/uptime",
].join("; ");

async function looksOf(container: Container): Promise<Looks> {
  const lines = (await container.shell(lookAround)).split("\n");
  assert.equal(lines.length, 8, lines.join("\n"));
  const [boot = "", uuid = "", urandom = "", random = "", hostname = "", mac = "", address = "", uptime] = lines;
  return { own: [boot, uuid, urandom, random, mac, address], hostname, mac, address, uptimeSec: Number(uptime) };
}

const CLOCK_TOLERANCE_MS = 100;

/** The guest's clock, as it stamps a file, lies between the host's before and after. */
async function assertClockIsHosts(container: Container): Promise<void> {
  const beforeMs = Date.now();
  const stamp = await container.shell("touch /now && stat -c %y /now");
  const afterMs = Date.now();
  const guestMs = Date.parse(stamp.replace(/(\.\d{3})\d* \+0000$/, "$1Z").replace(" ", "T"));
  const bounds = `${guestMs - beforeMs} ms after the call, which took ${afterMs - beforeMs} ms`;
  assert.ok(guestMs > beforeMs - CLOCK_TOLERANCE_MS && guestMs < afterMs + CLOCK_TOLERANCE_MS, bounds);
}

/** The interface that CNI made on the host for this pod. */
async function madeByCni(pod: Pod): Promise<{ readonly mac: string; readonly address: string }> {
  const { qemuPid } = await machineOf(node().prefix, pod.id);
  const text = await mustRun("nsenter", ["-t", String(qemuPid), "-n", "ip", "-json", "-4", "addr", "show", "dev", "eth0"]);
  const mac = await mustRun("nsenter", ["-t", String(qemuPid), "-n", "ip", "-json", "link", "show", "dev", "eth0"]);
  const [{ addr_info: addresses }] = JSON.parse(text) as [{ readonly addr_info: readonly { readonly local: string }[] }];
  const [{ address }] = JSON.parse(mac) as [{ readonly address: string }];
  return { mac: address, address: addresses[0]?.local ?? "" };
}

/** A pod with a container that has a volume, and that says its hostname. */
async function startNumbered(number: number): Promise<{ readonly pod: Pod; readonly container: Container; readonly volume: string }> {
  const volume = join(node().prefix.dir, `template-volume-${number}`);
  await mkdir(volume, { recursive: true });
  const pod = await runInVm({ hostname: `restored-${number}` });
  const container = await pod.start({
    mounts: [{ hostPath: volume, containerPath: "/volume" }],
    command: ["/bin/sh", "-c", "echo I am $(hostname); exec sleep infinity"],
  });
  return { pod, container, volume };
}

test("pods of one template share nothing that must be a pod's own, and each works", { skip }, async () => {
  await template();
  await using stack = new AsyncDisposableStack();
  const started: Awaited<ReturnType<typeof startNumbered>>[] = [];
  for (const number of [1, 2, 3]) {
    const one = await startNumbered(number);
    stack.use(one.pod);
    started.push(one);
  }
  const all: Looks[] = [];
  for (const [index, { pod, container, volume }] of started.entries()) {
    assert.equal(await beginningOf(pod), "guest-restore");
    await assertClockIsHosts(container);
    const looks = await looksOf(container);
    all.push(looks);
    assert.deepEqual({ mac: looks.mac, address: looks.address }, await madeByCni(pod));
    assert.equal((await pod.status()).network?.ip, looks.address);
    assert.equal(looks.hostname, `restored-${index + 1}`);
    assert.ok(looks.uptimeSec > 0 && looks.uptimeSec < 600, `up for ${looks.uptimeSec} s`);
    assert.equal(await container.shell("echo own > /own && cp /own /volume/written && cat /own"), "own");
    assert.equal(await readFile(join(volume, "written"), "utf8"), "own\n");
    await waitFor("its line", async () => (await container.logText("stdout")) === `I am restored-${index + 1}\n`);
    await assertHasStats(pod, container);
  }
  const own = all.flatMap((looks) => looks.own);
  assert.equal(new Set(own).size, own.length, JSON.stringify(all, undefined, 2));
  // Some seconds later: it also goes as fast as the host's.
  for (const { container } of started) await assertClockIsHosts(container);
});

async function assertHasStats(pod: Pod, container: Container): Promise<void> {
  const { runtime } = node().clients;
  const { stats } = await unary(runtime, runtime.containerStats, { containerId: container.id });
  const { stats: ofPod } = await unary(runtime, runtime.podSandboxStats, { podSandboxId: pod.id });
  for (const [name, value] of Object.entries({
    "the container's CPU time": stats?.cpu?.usageCoreNanoSeconds?.value,
    "the container's memory": stats?.memory?.workingSetBytes?.value,
    "the pod's CPU time": ofPod?.linux?.cpu?.usageCoreNanoSeconds?.value,
    "the pod's received bytes": ofPod?.linux?.network?.defaultInterface?.rxBytes?.value,
  }))
    assert.ok((value ?? 0n) > 0n, name);
}

test("each size of pods has its template: the first pod boots, the next goes on", { skip }, async () => {
  const usual = await template();
  const resources = { memoryLimitInBytes: 64n << 20n, cpuQuota: 200_000n, cpuPeriod: 100_000n };
  const sized = { linux: { resources } };
  await using first = await runInVm(sized);
  assert.equal(await beginningOf(first), "guest-boot", "though a template of another size is there");
  const others = async () => (await readdir(dir())).filter((name) => name.endsWith(".state") && name !== basename(usual));
  const [made = ""] = await waitFor("its template", async () => ((await others()).length > 0 ? others() : undefined), {
    timeoutMs: 40_000,
  });
  await waitFor("the daemon to tell", async () =>
    (await daemonLog(node().prefix)).some(({ message, path }) => message === MADE && path === join(dir(), made)),
  );
  await using next = await runInVm(sized);
  await using usualPod = await runInVm();
  for (const pod of [next, usualPod]) assert.equal(await beginningOf(pod), "guest-restore");
  const looks = await (await next.start()).shell("grep -c ^processor /proc/cpuinfo; awk '/^MemTotal/ { print $2 }' /proc/meminfo");
  const [processors, memoryKib] = looks.split("\n").map(Number);
  assert.equal(processors, Math.min(2, availableParallelism()));
  assert.ok(memoryKib !== undefined && memoryKib > 64 * 1024 && memoryKib < 200 * 1024, `${memoryKib} KiB`);
  await rm(join(dir(), made));
});

/** What can happen to a file, and what QEMU says of it. */
const spoilings: readonly (readonly [name: string, spoil: (path: string, sizeBytes: number) => Promise<void>, says: RegExp])[] = [
  ["overwritten with noise", (path, sizeBytes) => writeFile(path, randomBytes(sizeBytes)), /not a migration stream/i],
  ["cut in the middle", (path, sizeBytes) => truncate(path, sizeBytes >> 1), /load of migration failed/i],
];
for (const [name, spoil, says] of spoilings) {
  test(`a template that was ${name}: the error says what QEMU said, nothing is left, and the retry boots`, { skip }, async () => {
    const path = await template();
    const good = await readFile(path);
    await spoil(path, good.length);
    const config = sandboxConfig(node().prefix);
    const { runtime } = node().clients;
    const run = async () => (await unary(runtime, runtime.runPodSandbox, { config, runtimeHandler: "aurae-vm" })).podSandboxId;
    const message = new RegExp(`did not go on from its template.*try again: it boots then.*QEMU ended with 1.*${says.source}`, says.flags);
    await assertRefused(node().kind, run(), { code: status.INTERNAL, message });
    assert.deepEqual((await unary(runtime, runtime.listPodSandbox, { filter: undefined })).items, []);
    assert.deepEqual(await leases(node().prefix), []);
    assert.deepEqual(await node().leaks(), []);
    assert.deepEqual(await readdir(dir()), []);
    const warning = (await daemonLog(node().prefix)).find(({ level, path: about }) => level === "warn" && about === path);
    assert.match(warning?.problem ?? "", says);
    {
      await using pod = new Pod({ node: node(), id: await run(), config });
      assert.equal(await beginningOf(pod), "guest-boot");
      assert.equal((await (await pod.start()).exec(["/bin/echo", "works"])).stdout, "works\n");
    }
    await node().daemon.stop();
    await writeFile(path, good, { mode: 0o600 });
    await node().startDaemon();
  });
}

test("a template that was changed while nobody looked is no template: the pod boots, and another is made", { skip }, async () => {
  const path = await template();
  await node().daemon.stop();
  await using file = await open(path, "r+");
  // In the memory of the machine: QEMU would not notice.
  await file.write(Buffer.from([1, 2, 3]), 0, 3, (await file.stat()).size >> 1);
  await node().startDaemon();
  assert.deepEqual(await readdir(dir()), []);
  const warning = (await daemonLog(node().prefix)).find(({ level, path: about }) => level === "warn" && about === path);
  assert.match(warning?.message ?? "", /damaged/);
  await using pod = await runInVm();
  assert.equal(await beginningOf(pod), "guest-boot");
  await template();
});

test("killed -9 while a template is being made: nothing of it is left, and the next daemon makes it", { skip }, async () => {
  await node().daemon.stop();
  await rm(dir(), { recursive: true, force: true });
  await mkdir(dir(), { mode: 0o700 });
  await writeFile(join(dir(), foreignTemplate.name), foreignTemplate.state);
  await node().startDaemon();
  await using pod = await runInVm();
  assert.equal(await beginningOf(pod), "guest-boot");
  await waitFor("a machine to be saved", async () => (await makers()).length > 0);
  await node().kill9();
  await waitFor("its processes to end", async () => (await makers()).length === 0, { timeoutMs: 2000 });
  await node().startDaemon();
  assert.deepEqual(await readdir(dir()), [foreignTemplate.name]);
  assert.equal((await pod.status()).state, PodSandboxState.SANDBOX_READY, "the pod that was its occasion goes on");
  const path = await template();
  assert.deepEqual(await readdir(dir()), [basename(path)], "what nobody can use is gone");
});

test("a restart finds the template and makes no other", { skip }, async () => {
  const path = await template();
  const before = await stat(path);
  await node().restart();
  await using pod = await runInVm();
  assert.equal(await beginningOf(pod), "guest-restore");
  const { ino, mtimeMs } = await stat(path);
  assert.deepEqual({ ino, mtimeMs }, { ino: before.ino, mtimeMs: before.mtimeMs });
  assert.ok((await daemonLog(node().prefix)).every(({ message }) => message !== MADE));
});

test("kill -9 of the daemon under pods of a template: they go on, and no line and no end is lost", { skip }, async () => {
  await template();
  await using pod = await runInVm();
  await using other = await runInVm();
  for (const restored of [pod, other]) assert.equal(await beginningOf(restored), "guest-restore");
  const counter = "trap 'echo end; exit 21' TERM; i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done";
  const running = await pod.start({ command: ["/bin/sh", "-c", counter] });
  const endsMeanwhile = await other.start({ command: ["/bin/sh", "-c", "sleep 0.5; echo meanwhile; exit 6"] });
  const before = await pod.status();
  await node().kill9();
  await waitFor("a container to end without the daemon", async () => (await endsMeanwhile.logText("stdout")) === "meanwhile\n");
  const lines = (await running.logLines()).length;
  await waitFor("the log to go on without the daemon", async () => (await running.logLines()).length > lines + 10);
  await node().startDaemon();
  assert.deepEqual(await pod.status(), before);
  assert.equal((await running.status()).state, ContainerState.CONTAINER_RUNNING);
  assert.equal((await endsMeanwhile.waitExited()).exitCode, 6);
  assert.equal((await running.exec(["/bin/echo", "still"])).stdout, "still\n");
  await running.stop(10);
  assert.equal((await running.status()).exitCode, 21);
  const numbers = (await running.logText("stdout")).trimEnd().split("\n");
  assert.equal(numbers.pop(), "end");
  numbers.forEach((line, index) => assert.equal(Number(line), index + 1, "no line lost or repeated"));
});

test('vm.template = "off": pods boot though a template is there, and none is made', { skip }, async () => {
  await template();
  const configPath = join(node().prefix.dir, "config.toml");
  const config = await readFile(configPath, "utf8");
  await node().daemon.stop();
  await writeFile(configPath, config.replace("[vm]", '[vm]\ntemplate = "off"'));
  await node().startDaemon();
  try {
    for (const isThere of [true, false]) {
      if (!isThere) await rm(dir(), { recursive: true });
      await using pod = await runInVm();
      assert.equal(await beginningOf(pod), "guest-boot");
      assert.deepEqual([existsSync(dir()), await makers()], [isThere, []]);
    }
  } finally {
    await node().daemon.stop();
    await writeFile(configPath, config);
    await node().startDaemon();
  }
});
