import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempDisposable, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { VmError } from "./errors.ts";
import { checkGuestFiles, type GuestFlaw, loadGuestFiles } from "./guest-files.ts";

const signal = AbortSignal.timeout(60_000);
const architecture = process.arch === "arm64" ? "aarch64" : "x86_64";
const SCRATCH_BYTES = 64 * 2 ** 20;

type Json = Record<string, unknown>;

/** A directory with small files in place of a guest's, and a manifest that fits them. */
async function createGuest() {
  const directory = await mkdtempDisposable(join(tmpdir(), "guest-files-"));
  const write = async (file: string, text: string, version: string, sizeBytes = text.length): Promise<Json> => {
    await writeFile(join(directory.path, file), text);
    await using handle = await open(join(directory.path, file), "r+");
    await handle.truncate(sizeBytes);
    return { file, version, sizeBytes, dataBytes: text.length, sha256: createHash("sha256").update(text).digest("hex") };
  };
  const manifest = {
    formatVersion: 2,
    architecture,
    kernelRelease: "6.12.1",
    auraedVersion: "0.1.0",
    contractVersion: 1,
    kernelArguments: { always: ["quiet"], tcg: ["mitigations=off"] },
    parts: {
      kernel: await write("vmlinux", "a kernel", "6.12.1-1"),
      system: await write("system.erofs", "a system", "0.1.0 6.12.1-1"),
      scratch: await write("scratch.img", "a file system", "1", SCRATCH_BYTES),
    },
  };
  const save = (changed: unknown): Promise<void> => writeFile(join(directory.path, "manifest.json"), JSON.stringify(changed));
  await save(manifest);
  return { path: directory.path, manifest, write, save, [Symbol.asyncDispose]: () => directory.remove() };
}

async function flawsOf(directory: string): Promise<readonly GuestFlaw[]> {
  const check = await checkGuestFiles(directory, { signal });
  assert.ok(!check.complete, "complete");
  for (const { remedy } of check.flaws) assert.match(remedy, /make guest.*package/);
  return check.flaws;
}

test("a complete guest is told as what its manifest says; a hole at an end is no content", async () => {
  await using guest = await createGuest();
  const files = await loadGuestFiles(guest.path, { signal });
  assert.deepEqual(
    [files.directory, files.kernelRelease, files.auraedVersion, files.kernelArguments],
    [guest.path, "6.12.1", "0.1.0", { always: ["quiet"], tcg: ["mitigations=off"] }],
  );
  assert.equal(files.parts.scratch.sizeBytes, SCRATCH_BYTES);
  assert.equal(files.parts.system.path, join(guest.path, "system.erofs"));
  assert.equal(files.initrd, undefined);
});

test("an initrd is a part like the others, where there is one", async () => {
  await using guest = await createGuest();
  const parts = { ...guest.manifest.parts, initrd: await guest.write("initrd", "an initrd", "0.1.0 6.12.1-1") };
  await guest.save({ ...guest.manifest, parts });
  const files = await loadGuestFiles(guest.path, { signal });
  assert.equal(files.initrd?.path, join(guest.path, "initrd"));
  await writeFile(join(guest.path, "initrd"), "an inutrd");
  const [flaw] = await flawsOf(guest.path);
  assert.deepEqual([flaw?.kind, flaw?.file], ["corrupt", join(guest.path, "initrd")]);
});

test("every flaw is told at once, each with its file", async () => {
  await using guest = await createGuest();
  await rm(join(guest.path, "vmlinux"));
  await writeFile(join(guest.path, "system.erofs"), "a sustem");
  await using scratch = await open(join(guest.path, "scratch.img"), "r+");
  await scratch.truncate(5);
  const flaws = await flawsOf(guest.path);
  assert.deepEqual(
    flaws.map(({ kind, file }) => [kind, file.slice(guest.path.length + 1)]),
    [
      ["missing", "vmlinux"],
      ["corrupt", "system.erofs"],
      ["corrupt", "scratch.img"],
    ],
  );
  assert.match(flaws[1]?.problem ?? "", /has SHA-256 [0-9a-f]{64}, and the manifest says/);
  assert.match(flaws[2]?.problem ?? "", /has 5 bytes, and the manifest says 67108864/);
  await assert.rejects(loadGuestFiles(guest.path, { signal }), (error: unknown) => {
    assert.ok(error instanceof VmError && error.fact.code === "ERR_GUEST_FILES");
    assert.equal(error.fact.flaws.length, 3);
    assert.match(error.message, /vmlinux: not found; .*system.erofs: has SHA-256.*make guest/);
    return true;
  });
});

const manifests: readonly (readonly [string, (manifest: Json) => void, GuestFlaw["kind"], RegExp])[] = [
  ["another format", (manifest) => void (manifest["formatVersion"] = 1), "version", /formatVersion/],
  ["another architecture", (manifest) => void (manifest["architecture"] = "riscv64"), "version", /for riscv64, and this node is/],
  ["another contract", (manifest) => void (manifest["contractVersion"] = 2), "version", /contract version 2, and this daemon 1/],
  [
    "a system of another auraed or kernel",
    (manifest) => partOf(manifest, "system", "version", "9 6.12.1-1"),
    "version",
    /is of auraed and kernel 9 6\.12\.1-1, and the manifest says 0\.1\.0 6\.12\.1-1/,
  ],
  ["a part elsewhere", (manifest) => partOf(manifest, "kernel", "file", "../../boot/vmlinuz"), "corrupt", /parts\.kernel\.file/],
  ["a hidden part", (manifest) => partOf(manifest, "kernel", "file", ".vmlinux"), "corrupt", /parts\.kernel\.file/],
  ["no part", (manifest) => void delete (manifest["parts"] as Json)["scratch"], "corrupt", /parts\.scratch/],
  ["no checksum", (manifest) => partOf(manifest, "kernel", "sha256", "beef"), "corrupt", /sha256/],
  ["an argument that is more than one", (manifest) => argument(manifest, "quiet init=/bin/sh"), "corrupt", /kernelArguments\.always\.0/],
  [
    "too many arguments",
    (manifest) => argument(manifest, ...Array.from({ length: 33 }, () => "quiet")),
    "corrupt",
    /kernelArguments\.always/,
  ],
];

function partOf(manifest: Json, name: string, field: string, value: string): void {
  ((manifest["parts"] as Json)[name] as Json)[field] = value;
}

function argument(manifest: Json, ...always: string[]): void {
  manifest["kernelArguments"] = { always, tcg: [] };
}

for (const [name, change, kind, problem] of manifests) {
  test(`${name} is refused`, async () => {
    await using guest = await createGuest();
    const manifest = structuredClone(guest.manifest) as Json;
    change(manifest);
    await guest.save(manifest);
    const [flaw] = await flawsOf(guest.path);
    assert.equal(flaw?.kind, kind);
    assert.match(flaw?.problem ?? "", problem);
  });
}

test("no directory, no JSON and far too much of it are flaws of the manifest", async () => {
  const [none] = await flawsOf("/nowhere/guest");
  assert.deepEqual([none?.kind, none?.file], ["missing", "/nowhere/guest/manifest.json"]);
  await using guest = await createGuest();
  await writeFile(join(guest.path, "manifest.json"), "{");
  assert.equal((await flawsOf(guest.path))[0]?.kind, "corrupt");
  await writeFile(join(guest.path, "manifest.json"), " ".repeat(70_000));
  assert.match((await flawsOf(guest.path))[0]?.problem ?? "", /70000 bytes are no manifest/);
});
