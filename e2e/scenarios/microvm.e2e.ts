import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir, readFile, readlink, rename, stat } from "node:fs/promises";
import { release } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { parseLog } from "../harness/container.ts";
import { unary } from "../harness/cri-client.ts";
import { argumentsOf, type Machine, machineOf, statusOf } from "../harness/machine.ts";
import type { Pod } from "../harness/pod.ts";
import { runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const skip = runtimeUnderTest() === "containerd" ? "about our microVMs" : false;
const node = useNode({ pods: "both" });
const inVm = { runtimeHandler: "aurae-vm" };

function machine(pod: Pod): Promise<Machine> {
  return machineOf(node().prefix, pod.id);
}

async function isolation(pod: Pod): Promise<{ readonly isolation: string; readonly reason: string }> {
  const { runtime } = node().clients;
  const { info } = await unary(runtime, runtime.podSandboxStatus, { podSandboxId: pod.id, verbose: true });
  const { isolation: mode, reason } = JSON.parse(info["info"] ?? "") as { isolation: string; reason: string };
  return { isolation: mode, reason };
}

test("a microVM has a kernel of its own, by default and by its handler; aurae-flat has the host's", { skip }, async () => {
  for (const [runtimeHandler, expected] of [
    ["", { isolation: "microvm", reason: "Default" }],
    ["aurae-vm", { isolation: "microvm", reason: "HandlerVm" }],
    ["aurae-flat", { isolation: "flat", reason: "HandlerFlat" }],
  ] as const) {
    await using pod = await node().runPod({ runtimeHandler });
    const container = await pod.start();
    assert.deepEqual(await isolation(pod), expected);
    const seen = await container.shell("uname -r; cat /proc/sys/kernel/random/boot_id");
    const host = `${release()}\n${(await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim()}`;
    if (expected.isolation === "flat") assert.equal(seen, host);
    else
      assert.ok(
        seen.split("\n").every((line, index) => line !== host.split("\n")[index]),
        `${seen} inside, ${host} on the host`,
      );
  }
});

test("nothing that a client names reaches QEMU's command line, its environment, or a path", { skip }, async () => {
  const mark = "e7il";
  const hostile = [`${mark},readonly=off`, `-${mark} -device`, `../../${mark}`, `$(${mark})`, `${mark}\n-monitor\nstdio`, `"${mark}"};{`];
  const strings = Object.fromEntries(hostile.map((text, index) => [`${mark}.example/${index}`, text]));
  await using pod = await node().runPod({
    ...inVm,
    metadata: { name: `${mark},name`, namespace: `${mark}-namespace`, uid: `${mark}/../uid`, attempt: 0 },
    hostname: `${mark}.host`,
    labels: strings,
    annotations: { ...strings, [`qemu.${mark}/args`]: hostile.join(" ") },
  });
  const container = await pod.start({
    metadata: { name: `${mark}-container` },
    logPath: "plain.log",
    labels: strings,
    annotations: strings,
  });
  assert.equal(await container.shell("hostname"), `${mark}.host`);
  const { qemuPid } = await machine(pod);
  assert.doesNotMatch((await argumentsOf(qemuPid)).join("\n"), new RegExp(mark));
  assert.doesNotMatch(await readFile(`/proc/${qemuPid}/environ`, "utf8"), new RegExp(mark));
  const { rootDir, stateDir, dir } = node().prefix;
  for (const directory of [rootDir, stateDir, join(dir, "bundles")]) {
    const paths = await readdir(directory, { recursive: true });
    assert.deepEqual(
      paths.filter((path) => path.includes(mark)),
      [],
    );
  }
});

test("QEMU is a user of its pod without any right, and its root holds its own files alone", { skip }, async () => {
  await using pod = await node().runPod(inVm);
  await using other = await node().runPod(inVm);
  const { qemuPid } = await machine(pod);
  const status = await statusOf(qemuPid);
  const [uid = "", ...uids] = (status["Uid"] ?? "").split("\t");
  assert.notEqual(uid, "0");
  assert.deepEqual(uids, [uid, uid, uid]);
  assert.deepEqual(status["Gid"]?.split("\t"), [uid, uid, uid, uid]);
  assert.equal(status["Groups"]?.trim(), "");
  assert.notEqual((await statusOf((await machine(other)).qemuPid))["Uid"], status["Uid"], "each pod's is another user");
  for (const task of await readdir(`/proc/${qemuPid}/task`)) {
    const thread = await statusOf(qemuPid, Number(task));
    for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) assert.equal(thread[set], "0".repeat(16), set);
    assert.deepEqual([thread["NoNewPrivs"], thread["Seccomp"]], ["1", "2"], `thread ${task}`);
  }
  for (const kind of ["mnt", "net", "ipc", "uts"]) {
    assert.notEqual(await readlink(`/proc/${qemuPid}/ns/${kind}`), await readlink(`/proc/self/ns/${kind}`), kind);
  }
  const libraries = ["lib", "lib32", "lib64", "libx32"].filter((name) => existsSync(`/${name}`));
  const expected = [...libraries, "dev", "etc", "kernel", "layers", "run", "scratch.img", "system.erofs", "usr"];
  assert.deepEqual((await readdir(`/proc/${qemuPid}/root`)).toSorted(), expected.toSorted());
  assert.deepEqual((await readdir(`/proc/${qemuPid}/root/dev`)).toSorted(), ["null", "urandom", "zero"]);
  assert.deepEqual(await readdir(`/proc/${qemuPid}/root/etc`), ["ld.so.cache"]);
});

/** `device inode` of each image layer that a QEMU maps, with the rights it has. */
async function mappedLayers(pod: Pod): Promise<ReadonlyMap<string, string>> {
  const { qemuPid } = await machine(pod);
  const lines = [...(await readFile(`/proc/${qemuPid}/maps`, "utf8")).matchAll(/^\S+ (\S{4}) \S+ (\S+ \d+) +\/layers\/\S+$/gm)];
  return new Map(lines.map(([, rights = "", file = ""]) => [file, rights]));
}

test("microVMs of one image map the same file: its bytes are in the host's memory once", { skip }, async () => {
  await using first = await node().runPod(inVm);
  await using second = await node().runPod(inVm);
  for (const pod of [first, second]) await pod.start();
  const layers = await mappedLayers(first);
  assert.equal(layers.size, 1);
  assert.deepEqual([...layers.values()], ["r--s"]);
  assert.deepEqual(await mappedLayers(second), layers);
  const [file = ""] = layers.keys();
  const files = await readdir(node().prefix.rootDir, { recursive: true });
  const inodes = await Promise.all(files.map(async (path) => (await stat(join(node().prefix.rootDir, path)).catch(() => undefined))?.ino));
  assert.ok(inodes.includes(Number(file.split(" ")[1])), `${file} is a file of the image store`);
});

test("a container that uses up its memory in the guest: OOMKilled, and the pod goes on", { skip }, async () => {
  await using pod = await node().runPod(inVm);
  const other = await pod.start();
  const container = await pod.start({
    command: ["/bin/sh", "-c", "tail -c 200m /dev/zero"],
    linux: { resources: { memoryLimitInBytes: 32n * 1024n * 1024n } },
  });
  const { exitCode, reason } = await container.waitExited(30_000);
  assert.deepEqual([exitCode, reason], [137, "OOMKilled"]);
  assert.equal((await other.exec(["/bin/echo", "alive"])).stdout, "alive\n");
});

test("20,000 lines through a kill -9 of the daemon and a rotation: none lost, none repeated", { skip }, async () => {
  await using pod = await node().runPod(inVm);
  const script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; [ $((i % 100)) -ne 0 ] || usleep 10000; done; sleep 100";
  const container = await pod.start({ command: ["/bin/sh", "-c", script] });
  const size = async () => (await stat(container.logPath)).size;
  await waitFor("some lines", async () => (await size()) > 20_000, { timeoutMs: 30_000 });
  await node().kill9();
  const before = await size();
  await waitFor("the log to go on without the daemon", async () => (await size()) > before + 20_000, { timeoutMs: 30_000 });
  const rotated = `${container.logPath}.1`;
  await rename(container.logPath, rotated);
  await node().startDaemon();
  await container.reopenLog();
  const first = await readFile(rotated, "utf8");
  await waitFor("the last line", async () => (await readFile(container.logPath, "utf8")).endsWith(" 20000\n"), { timeoutMs: 60_000 });
  assert.equal((await readFile(rotated, "utf8")).length, first.length, "the renamed file stays still");
  const numbers = parseLog(first + (await readFile(container.logPath, "utf8"))).map(({ text }) => Number(text));
  assert.equal(numbers.length, 20_000);
  numbers.forEach((number, index) => assert.equal(number, index + 1));
});
