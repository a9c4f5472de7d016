import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtempDisposable, readdir, readFile, readlink, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { silentLog } from "../lib/log.ts";
import type { VirtualizationReport } from "../runtime/ports.ts";
import { VmError } from "./errors.ts";
import type { VmOptions } from "./options.ts";
import { VmProbe } from "./probe.ts";
import { retryAtMs, type Verdict } from "./verdict.ts";
import { NodeVirtualization } from "./virtualization.ts";

const signal = AbortSignal.timeout(120_000);
const realQemu = "/usr/bin/qemu-system-x86_64";
const builtGuest = new URL("../../build/guest", import.meta.url).pathname;

interface Bed extends AsyncDisposable {
  readonly path: string;
  readonly options: VmOptions;
  /** What the QEMU in the bed does when it is to boot something. */
  behave(shell: string): Promise<void>;
  /** How often it was to. */
  boots(): Promise<number>;
}

/** A node with a guest, a device that opens, and a QEMU that does as it is told. */
async function createBed(): Promise<Bed> {
  const directory = await mkdtempDisposable(join(tmpdir(), "virtualization-"));
  const { path } = directory;
  const part = async (file: string, version: string) => {
    await writeFile(join(path, file), file);
    return { file, version, sizeBytes: file.length, dataBytes: file.length, sha256: createHash("sha256").update(file).digest("hex") };
  };
  const parts = {
    kernel: await part("vmlinux", "6"),
    system: await part("system", "1 6"),
    scratch: await part("scratch", "1"),
  };
  const manifest = {
    formatVersion: 2,
    architecture: process.arch === "arm64" ? "aarch64" : "x86_64",
    kernelRelease: "6.12.1",
    auraedVersion: "1",
    contractVersion: 1,
    kernelArguments: { always: [], tcg: [] },
    parts,
  };
  await writeFile(join(path, "manifest.json"), JSON.stringify(manifest));
  await writeFile(join(path, "kvm"), "");
  const qemuPath = join(path, "qemu");
  const behave = (shell: string): Promise<void> => writeFile(join(path, "behaviour"), shell);
  const script = `#!/bin/sh\n[ "$1" = --version ] && exec echo 'QEMU emulator version 7.2.22 (test)'\necho boot >> ${path}/boots\n. ${path}/behaviour\n`;
  await writeFile(qemuPath, script, { mode: 0o755 });
  await behave("exit 1");
  return {
    path,
    behave,
    boots: async () => (await readFile(join(path, "boots"), "utf8").catch(() => "")).split("\n").length - 1,
    options: {
      accelerator: "auto",
      qemuPath,
      guestDir: path,
      // Below the daemon's root, which is not there before its first start.
      verdictFile: join(path, "root", "verdict.json"),
      defaultMemoryBytes: 2 ** 29,
      defaultVcpus: 1,
      bootId: "this-boot",
      kvmPath: join(path, "kvm"),
      trialTimeoutMs: 2_000,
    },
    [Symbol.asyncDispose]: () => directory.remove(),
  };
}

async function settle(options: VmOptions): Promise<VirtualizationReport> {
  await using virtualization = NodeVirtualization.open(options, { log: silentLog });
  return await virtualization.settled({ signal });
}

function messageOf(report: VirtualizationReport): string {
  assert.equal(report.state, "unavailable", JSON.stringify(report));
  return report.state === "unavailable" ? report.message : "";
}

const serving = "echo 'auraed init: serving, version 1'; sleep 60";

test("a guest that answers proves it, once for all later starts", async () => {
  await using bed = await createBed();
  await bed.behave(serving);
  await using virtualization = NodeVirtualization.open(bed.options, { log: silentLog });
  assert.deepEqual(virtualization.report(), { state: "unknown" });
  assert.throws(
    () => virtualization.parts(),
    (error: unknown) => error instanceof VmError && error.fact.code === "ERR_VM_UNAVAILABLE",
  );
  const report = await virtualization.settled({ signal });
  assert.ok(report.state === "available" && report.accelerator === "kvm", JSON.stringify(report));
  assert.match(report.message, /trial boot of the guest \(Linux 6\.12\.1, QEMU 7\.2\.22, kvm\) answered after \d+ ms/);
  assert.equal(virtualization.parts().files.kernelRelease, "6.12.1");
  assert.deepEqual(await settle(bed.options), report);
  assert.equal(await bed.boots(), 1);
});

test("a verdict is about these parts and this boot of the host alone", async () => {
  await using bed = await createBed();
  await bed.behave(serving);
  await settle(bed.options);
  await settle({ ...bed.options, bootId: "another-boot" });
  assert.equal(await bed.boots(), 2);
  await writeFile(bed.options.verdictFile, "{");
  assert.equal((await settle(bed.options)).state, "available", "a damaged file is none");
  assert.equal(await bed.boots(), 3);
});

test("a silent guest is given up at the deadline; a kept refusal holds at once, without a boot", async () => {
  await using bed = await createBed();
  await bed.behave("echo 'Linux version'; echo 'stuck here'; echo 'complaint' >&2; sleep 60");
  const options = { ...bed.options, trialTimeoutMs: 300 };
  const report = await settle(options);
  assert.match(
    messageOf(report),
    /did not answer within 0\.3 s: the guest's last words: Linux version \| stuck here; QEMU's: complaint; KVM does not work here.*check --full/,
  );
  assert.equal(report.state === "unavailable" && report.consoleTail, "Linux version\nstuck here");
  assert.deepEqual(await settle(options), report);
  assert.equal(await bed.boots(), 1);
});

test("of a panic its reason is told, not its stack", async () => {
  await using bed = await createBed();
  await bed.behave("echo 'cannot do it'; echo 'Kernel panic - not syncing'; echo 'Call Trace:'; echo ' ? panic+0xfc'; exit 0");
  assert.match(
    messageOf(await settle(bed.options)),
    /ended with exit code 0: the guest's last words: cannot do it \| Kernel panic - not syncing; KVM/,
  );
});

test("a refusal is tried again when its time has come, and holds until that is over", async () => {
  await using bed = await createBed();
  await bed.behave("exit 3");
  await using virtualization = NodeVirtualization.open({ ...bed.options, retryBaseMs: 400, retryMaxMs: 400 }, { log: silentLog });
  await virtualization.settled({ signal });
  await bed.behave("sleep 0.3; echo 'auraed init: serving'; sleep 60");
  while ((await bed.boots()) < 2) {
    assert.equal(virtualization.report().state, "unavailable");
    await sleep(10, undefined, { signal });
  }
  assert.equal(virtualization.report().state, "unavailable");
  while (virtualization.report().state !== "available") await sleep(10, undefined, { signal });
  const kept = JSON.parse(await readFile(bed.options.verdictFile, "utf8")) as Verdict;
  assert.equal(kept.failures, 0);
});

test("a verdict that somebody else brought about is noticed", async () => {
  await using bed = await createBed();
  await bed.behave("exit 3");
  await using virtualization = NodeVirtualization.open({ ...bed.options, noticeMs: 20 }, { log: silentLog });
  assert.equal((await virtualization.settled({ signal })).state, "unavailable");
  await bed.behave(serving);
  await new VmProbe(bed.options).trialBoot({ signal });
  while (virtualization.report().state !== "available") await sleep(10, undefined, { signal });
  assert.equal(await bed.boots(), 2);
});

test("what lacked is looked for again as soon as somebody needs it; a failed trial boot is not repeated for that", async () => {
  await using bed = await createBed();
  await bed.behave("exit 1");
  await using virtualization = NodeVirtualization.open({ ...bed.options, guestDir: join(bed.path, "guest") }, { log: silentLog });
  assert.match(messageOf(await virtualization.settled({ signal })), /manifest\.json: not found/);
  assert.match(messageOf(await virtualization.lookAgain({ signal })), /manifest\.json: not found/);
  await symlink(bed.path, join(bed.path, "guest"));
  const reports = await Promise.all([virtualization.lookAgain({ signal }), virtualization.lookAgain({ signal })]);
  for (const report of reports) assert.match(messageOf(report), /a trial boot of the guest .* ended with exit code 1/);
  assert.match(messageOf(await virtualization.lookAgain({ signal })), /a trial boot/);
  assert.equal(await bed.boots(), 1);
});

test("waits between trials double from the least to the most", () => {
  const backoff = { retryBaseMs: 600_000, retryMaxMs: 21_600_000 };
  const outcome = { booted: false, message: "", consoleTail: "" } as const;
  const waits = [1, 2, 3, 6, 7, 1000].map((failures) => retryAtMs({ key: "", outcome, failures, triedAtMs: 5 }, backoff) - 5);
  assert.deepEqual(
    waits.map((ms) => ms / 60_000),
    [10, 20, 40, 320, 360, 360],
  );
});

test("closing in the middle of a trial leaves no process and no verdict", async () => {
  await using bed = await createBed();
  await bed.behave(`echo $$ > ${bed.path}/pid; sleep 60`);
  const virtualization = NodeVirtualization.open(bed.options, { log: silentLog });
  const waiting = virtualization.settled({ signal });
  waiting.catch(() => {});
  while ((await readFile(join(bed.path, "pid"), "utf8").catch(() => "")) === "") await sleep(5, undefined, { signal });
  await virtualization[Symbol.asyncDispose]();
  await assert.rejects(waiting, { name: "AbortError" });
  assert.ok(!existsSync(bed.options.verdictFile));
  assert.deepEqual(await processesIn(bed.path), []);
});

/** Processes that have a file below `path` as program or argument. */
async function processesIn(path: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    const program = await readlink(`/proc/${pid}/exe`).catch(() => "");
    if (command.includes(path) || program.startsWith(path)) found.push(command);
  }
  return found;
}

const lacking: readonly (readonly [string, (bed: Bed) => Promise<Partial<VmOptions>>, RegExp])[] = [
  ["no QEMU", async () => ({ qemuPath: "/nowhere/qemu" }), /QEMU, \/nowhere\/qemu: not found: install it.*vm\.qemu_path/],
  [
    "an old QEMU",
    async (bed) => ({ qemuPath: await anotherQemu(bed, "echo 'QEMU emulator version 6.2.0'") }),
    /QEMU 6\.2\.0, and a microVM needs 7\.2 or newer/,
  ],
  [
    "a QEMU that is none",
    async (bed) => ({ qemuPath: await anotherQemu(bed, "echo 'no library' >&2; exit 127") }),
    /does not tell its version: no library/,
  ],
  ["no guest", async () => ({ guestDir: "/nowhere/guest" }), /manifest\.json: not found: run `make guest`/],
  ["no device", async () => ({ kvmPath: "/nowhere/kvm" }), /\/nowhere\/kvm cannot be opened \(ENOENT\).*(modprobe|nested virtualization)/],
  ["off", async () => ({ accelerator: "off" }), /^vm\.accelerator is "off"$/],
];
for (const [name, change, message] of lacking) {
  test(`${name}: said at once, with what to do, and nothing is booted`, async () => {
    await using bed = await createBed();
    await bed.behave(serving);
    const report = await settle({ ...bed.options, ...(await change(bed)) });
    assert.match(messageOf(report), message);
    assert.equal(await bed.boots(), 0);
    assert.ok(!existsSync(bed.options.verdictFile));
  });
}

async function anotherQemu(bed: Bed, shell: string): Promise<string> {
  const path = join(bed.path, "another-qemu");
  await writeFile(path, `#!/bin/sh\n${shell}\n`, { mode: 0o755 });
  return path;
}

test("emulation needs no proof and no KVM, but all of the files", async () => {
  await using bed = await createBed();
  const options = { ...bed.options, accelerator: "tcg", kvmPath: "/nowhere/kvm" } as const;
  const report = await settle(options);
  assert.ok(report.state === "available" && report.accelerator === "tcg", JSON.stringify(report));
  assert.equal(await bed.boots(), 0);
  await rm(join(bed.path, "system"));
  assert.match(messageOf(await settle(options)), /system: not found/);
});

test("the probe tells parts and kept verdict without a boot, and its boot is kept for the daemon", async () => {
  await using bed = await createBed();
  await bed.behave(serving);
  const probe = new VmProbe(bed.options);
  assert.deepEqual(await probe.guestFiles({ signal }), { dir: bed.path, versions: "Linux 6.12.1, auraed 1" });
  assert.equal(await probe.keptVerdict({ signal }), undefined);
  assert.equal(await bed.boots(), 0);
  const { report, firstAnswerMs } = await probe.trialBoot({ signal });
  assert.equal(report.state, "available");
  assert.ok(firstAnswerMs !== undefined && firstAnswerMs < 2_000);
  assert.deepEqual(await probe.keptVerdict({ signal }), report);
  assert.deepEqual(await settle(bed.options), report);
  assert.equal(await bed.boots(), 1);
});

const noGuest = existsSync(realQemu)
  ? existsSync(join(builtGuest, "manifest.json"))
    ? false
    : "no build/guest: run `make guest`"
  : `${realQemu} is not installed`;

/** By a path of the bed's own: the processes of other tests, which run beside these, are not among those found there. */
async function linkRealGuest(bed: Bed): Promise<string> {
  const guestDir = join(bed.path, "real-guest");
  await symlink(builtGuest, guestDir);
  return guestDir;
}

test("the real guest on the real QEMU has its verdict in time, whatever it is, and leaves nothing", { skip: noGuest }, async () => {
  await using bed = await createBed();
  const { trialTimeoutMs: _, kvmPath: __, ...rest } = bed.options;
  const guestDir = await linkRealGuest(bed);
  const startedAtMs = performance.now();
  const report = await settle({ ...rest, qemuPath: realQemu, guestDir });
  assert.ok(performance.now() - startedAtMs < 10_000, "within 10 s");
  assert.notEqual(report.state, "unknown");
  if (report.state === "unavailable") assert.match(report.message, /KVM/);
  assert.deepEqual(await processesIn(guestDir), []);
});

test("the real guest answers under emulation", { skip: noGuest }, async () => {
  await using bed = await createBed();
  const guestDir = await linkRealGuest(bed);
  const probe = new VmProbe({ ...bed.options, accelerator: "tcg", qemuPath: realQemu, guestDir });
  const trial = probe.trialBoot({ signal });
  // That they would be found.
  while ((await processesIn(guestDir)).length === 0) await sleep(5, undefined, { signal });
  const { report } = await trial;
  assert.equal(report.state, "available", JSON.stringify(report));
  assert.deepEqual(await processesIn(guestDir), []);
});
