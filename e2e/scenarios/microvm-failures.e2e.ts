import assert from "node:assert/strict";
import { chmod, open, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";

import { status } from "@grpc/grpc-js";

import type { PodSandboxConfig } from "../../api/gen/cri/v1/api.ts";
import { assertRefused, type ExpectedError } from "../harness/assertions.ts";
import { mustRun, runCommand } from "../harness/command.ts";
import { unary } from "../harness/cri-client.ts";
import { spoilableParts } from "../harness/guest-dir.ts";
import { leases } from "../harness/leaks.ts";
import { Pod, sandboxConfig } from "../harness/pod.ts";
import { runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";

const skip = runtimeUnderTest() === "containerd" ? "about our microVMs" : false;
const parts = await spoilableParts();
const { guestDir, qemuPath } = parts;
// Before the node's own end: a leak found there would leave these too.
after(() => parts[Symbol.asyncDispose]());
// A template that is being made is a process of no pod: what is left could not be told from it.
const node = useNode({ pods: "both", config: { vm: { qemu_path: qemuPath, guest_dir: guestDir, template: "off" } } });

async function runInVm(config: PodSandboxConfig): Promise<Pod> {
  const { runtime } = node().clients;
  const { podSandboxId } = await unary(runtime, runtime.runPodSandbox, { config, runtimeHandler: "aurae-vm" });
  return new Pod({ node: node(), id: podSandboxId, config });
}

/** It runs a container, in a guest. */
async function assertWorks(config: PodSandboxConfig): Promise<void> {
  await using pod = await runInVm(config);
  const container = await pod.start();
  assert.equal((await container.exec(["/bin/echo", "works"])).stdout, "works\n");
}

/** Nothing of the pod; `ours` are the test's own. */
async function assertNothingLeft(ours: readonly string[] = []): Promise<void> {
  const { runtime } = node().clients;
  assert.deepEqual((await unary(runtime, runtime.listPodSandbox, { filter: undefined })).items, []);
  assert.deepEqual(await leases(node().prefix), []);
  assert.deepEqual(
    (await node().leaks()).filter((leak) => !ours.includes(leak)),
    [],
  );
}

/** Spoils what a machine starts from while the daemon is down; the request is refused, and works when all is mended, without another start. */
async function refusedUntilMended(spoil: () => Promise<void>, message: RegExp): Promise<void> {
  await node().daemon.stop();
  await spoil();
  await node().startDaemon();
  const config = sandboxConfig(node().prefix);
  try {
    await assertRefused(node().kind, runInVm(config), { code: status.FAILED_PRECONDITION, message });
    await assertRefused(node().kind, runInVm(config), { code: status.FAILED_PRECONDITION, message });
    await assertNothingLeft();
  } finally {
    await parts.mend();
  }
  await assertWorks(config);
}

async function writeProgram(path: string, script: string): Promise<void> {
  await rm(path);
  await writeFile(path, `#!/bin/sh\n${script}\n`);
  await chmod(path, 0o755);
}

test("QEMU is missing", { skip }, async () => {
  await refusedUntilMended(() => rm(qemuPath), new RegExp(`${qemuPath}: not found: install it .*qemu-system-x86.*vm\\.qemu_path`));
});

test("QEMU is too old", { skip }, async () => {
  const spoil = () => writeProgram(qemuPath, "echo 'QEMU emulator version 6.1.0'");
  await refusedUntilMended(
    spoil,
    new RegExp(`${qemuPath} is QEMU 6\\.1\\.0, and a microVM needs 7\\.2 or newer: upgrade it.*vm\\.qemu_path`),
  );
});

test("the kernel is missing", { skip }, async () => {
  const spoil = () => rm(join(guestDir, "vmlinux"));
  await refusedUntilMended(spoil, new RegExp(`${guestDir}/vmlinux: not found: .*make guest.*install`));
});

test("the system disk is corrupt: one byte is another", { skip }, async () => {
  const spoil = async () => {
    await using file = await open(join(guestDir, "system.erofs"), "r+");
    const { size } = await file.stat();
    const { buffer } = await file.read(Buffer.alloc(1), 0, 1, size >> 1);
    await file.write(Buffer.of((buffer[0] ?? 0) ^ 1), 0, 1, size >> 1);
  };
  await refusedUntilMended(spoil, new RegExp(`${guestDir}/system.erofs: has SHA-256 [0-9a-f]{64}, and the manifest says .*make guest`));
});

test("the guest's files are of another contract version", { skip }, async () => {
  const path = join(guestDir, "manifest.json");
  const spoil = async () => {
    const manifest = JSON.parse(await readFile(path, "utf8")) as { readonly contractVersion: number };
    await rm(path);
    await writeFile(path, JSON.stringify({ ...manifest, contractVersion: manifest.contractVersion + 1 }));
  };
  await refusedUntilMended(spoil, new RegExp(`${path}: speaks contract version 2, and this daemon 1: .*make guest`));
});

/** A refusal of a daemon that knows already that it can: nothing is left, and the node goes on. */
async function assertRefusedAtStart(config: PodSandboxConfig, expected: ExpectedError, ours: readonly string[] = []): Promise<void> {
  await assertRefused(node().kind, runInVm(config), expected);
  await assertNothingLeft(ours);
}

test("the kernel vanishes under a running daemon: the file is named, and its return is enough", { skip }, async () => {
  const config = sandboxConfig(node().prefix);
  await assertWorks(config);
  await rm(join(guestDir, "vmlinux"));
  try {
    const message = new RegExp(`${guestDir}/vmlinux`);
    await assertRefusedAtStart(config, { code: status.INTERNAL, message });
  } finally {
    await parts.mend();
  }
  await assertWorks(config);
});

test("vm.default_memory is below what boots: the key and the least are named; a pod with a limit does not need it", { skip }, async () => {
  const path = join(node().prefix.dir, "config.toml");
  const before = await readFile(path, "utf8");
  await node().daemon.stop();
  await writeFile(path, before.replace("[vm]", '[vm]\ndefault_memory = "32MiB"'));
  await node().startDaemon();
  const config = sandboxConfig(node().prefix);
  try {
    const message = /vm\.default_memory is 33554432 bytes, too little for a microVM: give it at least 100663296 \(96 MiB\)/;
    await assertRefusedAtStart(config, { code: status.INVALID_ARGUMENT, message });
    const resources = { memoryLimitInBytes: 64n << 20n };
    await assertWorks(sandboxConfig(node().prefix, { linux: { resources } }));
  } finally {
    await node().daemon.stop();
    await writeFile(path, before);
    await node().startDaemon();
  }
  await assertWorks(config);
});

test("a pod's limit is below what boots: the field and the least are named, and the least is enough", { skip }, async () => {
  const limited = (bytes: number) => sandboxConfig(node().prefix, { linux: { resources: { memoryLimitInBytes: BigInt(bytes) } } });
  const message = /linux\.resources\.memory_limit_in_bytes is 4194304 bytes, too little .* at least (\d+)/;
  await assertRefusedAtStart(limited(4 << 20), { code: status.INVALID_ARGUMENT, message });
  await assertWorks(limited(12 << 20));
});

/** A small file system as the directory of the pods; unmounted when disposed. */
async function smallPodsDir(size: string) {
  const dir = join(node().prefix.rootDir, "pods");
  await mustRun("mount", ["-t", "tmpfs", "-o", `size=${size}`, "none", dir]);
  return {
    dir,
    async [Symbol.asyncDispose]() {
      await runCommand("umount", ["-l", dir]);
    },
  };
}

/** Takes all that is free, and gives `leftBytes` back. */
async function fill(path: string, leftBytes: number): Promise<void> {
  await runCommand("dd", ["if=/dev/zero", `of=${path}`, "bs=4096"]);
  await using file = await open(path);
  await truncate(path, (await file.stat()).size - leftBytes);
}

test("the disk is full when the scratch disk is made: said so, and space is all that it takes", { skip }, async () => {
  await using small = await smallPodsDir("8m");
  const config = sandboxConfig(node().prefix);
  // A record of a pod takes less, its scratch disk more.
  await fill(join(small.dir, "filler"), 24 << 10);
  const message = new RegExp(`scratch disk ${small.dir}/[0-9a-f]+/scratch\\.img: No space left on device`);
  const ours = [`mount: ${small.dir} (tmpfs none /)`, `directory: ${join(small.dir, "filler")}`];
  await assertRefusedAtStart(config, { code: status.RESOURCE_EXHAUSTED, message }, ours);
  await rm(join(small.dir, "filler"));
  await assertWorks(config);
});

test("the disk fills while a pod runs: its writes fail, and nothing else of it", { skip }, async () => {
  await using small = await smallPodsDir("24m");
  await using pod = await runInVm(sandboxConfig(node().prefix));
  const container = await pod.start();
  await fill(join(small.dir, "filler"), 4 << 20);
  const written = await container.exec(["/bin/sh", "-c", "dd if=/dev/zero of=/big bs=1M count=64 && sync /big"], 60);
  assert.notEqual(written.exitCode, 0, written.stderr);
  assert.equal((await container.exec(["/bin/echo", "alive"], 10)).stdout, "alive\n");
  // A pod's end is written down too.
  await rm(join(small.dir, "filler"));
});
