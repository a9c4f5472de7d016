import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtempDisposable, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { messageOf } from "../lib/coded-error.ts";
import type { Log } from "../lib/log.ts";
import { silentLog } from "../lib/log.ts";
import { findBootParts } from "./boot-parts.ts";
import { testPart, testParts } from "./boot-test-parts.ts";
import { resolveVmOptions } from "./options.ts";
import { type Blueprint, MachineTemplates, templateKey } from "./templates.ts";

const signal = AbortSignal.timeout(120_000);
const realQemu = "/usr/bin/qemu-system-x86_64";
const builtGuest = new URL("../../build/guest", import.meta.url).pathname;
const noGuest =
  existsSync(realQemu) && existsSync(join(builtGuest, "manifest.json")) ? false : "needs QEMU and build/guest: run `make build`";

const blueprint: Blueprint = {
  machine: { accelerator: testParts.accelerator, memoryMib: 512, vcpus: 1, systemBytes: 2 ** 21, beginning: "boot" },
  // Nothing boots with this one.
  parts: { ...testParts, qemu: { ...testParts.qemu, path: "/bin/false" } },
};

/** File name of a template with this state. */
function stateName(of: Blueprint, state: string): string {
  return `${templateKey(of)}.${createHash("sha256").update(state).digest("hex")}.state`;
}

test("a template is of one QEMU, one machine and one guest", () => {
  const { machine, parts } = blueprint;
  const { qemu, files } = parts;
  const others: Blueprint[] = [
    { machine, parts: { ...parts, qemu: { ...qemu, identity: "2" } } },
    { machine, parts: { ...parts, qemu: { ...qemu, version: "7.2.1" } } },
    { machine: { ...machine, memoryMib: 514 }, parts },
    { machine: { ...machine, vcpus: 2 }, parts },
    // The guest was told the frequency.
    { machine: { ...machine, accelerator: { kind: "tcg", hostTscKhz: 2_000_001 } }, parts },
    { machine, parts: { ...parts, files: { ...files, kernelArguments: { always: [], tcg: [] } } } },
    { machine, parts: { ...parts, files: { ...files, initrd: testPart("initrd") } } },
    ...(["kernel", "system", "scratch"] as const).map((name) => {
      const changed = { ...files.parts, [name]: { ...files.parts[name], sha256: "other" } };
      return { machine, parts: { ...parts, files: { ...files, parts: changed } } };
    }),
  ];
  const keys = new Set([blueprint, ...others].map(templateKey));
  assert.equal(keys.size, others.length + 1);
  assert.equal(templateKey({ machine: { ...machine, beginning: "restore" }, parts }), templateKey(blueprint), "however it is to begin");
});

test("what an earlier daemon made is found, what it did not finish is removed", async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), "templates-"));
  const dir = join(directory.path, "vm-templates");
  const file = stateName(blueprint, "whole");
  await mkdir(join(dir, "new-abc"), { recursive: true });
  await writeFile(join(dir, "new-abc", "state"), "half");
  await writeFile(join(dir, file), "whole");
  const { log, warnings } = warningsOnly();
  await using templates = await MachineTemplates.open(dir, { log });
  assert.deepEqual(await readdir(dir), [file]);
  assert.equal(templates.find(blueprint), join(dir, file));
  assert.equal(templates.find({ ...blueprint, machine: { ...blueprint.machine, memoryMib: 1024 } }), undefined);

  for (let pod = 0; pod < 2; pod++) await templates.giveUp(blueprint, "QEMU ended with 1");
  assert.equal(warnings.length, 1, "of pods that fail together the first says so");
  assert.match(warnings[0] ?? "", /removed: microVMs of its size boot.*QEMU ended with 1/);
  assert.equal(templates.find(blueprint), undefined);
  assert.deepEqual(await readdir(dir), []);
  templates.want(blueprint);
  await sleep(20);
  assert.deepEqual(await readdir(dir), [], "what failed is not tried again by this daemon");
});

test("a damaged one is removed, and told", async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), "templates-"));
  const other = { ...blueprint, machine: { ...blueprint.machine, vcpus: 2 } };
  const damaged = join(directory.path, stateName(blueprint, "whole"));
  const empty = join(directory.path, stateName(other, "whole"));
  await writeFile(damaged, "whale");
  await writeFile(empty, "");
  const { log, warnings } = warningsOnly();
  await using templates = await MachineTemplates.open(directory.path, { log });
  assert.deepEqual(await readdir(directory.path), []);
  for (const path of [damaged, empty]) assert.ok(warnings.some((warning) => warning.includes("damaged") && warning.includes(path)));
  assert.equal(templates.find(blueprint), undefined);
});

test("a template that an operator removed is made anew", async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), "templates-"));
  const path = join(directory.path, stateName(blueprint, "whole"));
  await writeFile(path, "whole");
  const { log, warnings } = warningsOnly();
  await using templates = await MachineTemplates.open(directory.path, { log });
  await rm(path);
  assert.equal(templates.find(blueprint), undefined);
  templates.want(blueprint);
  while (warnings.length === 0) await sleep(5, undefined, { signal });
  assert.match(warnings[0] ?? "", /no template could be made/, "it was tried");
});

function warningsOnly(): { readonly log: Log; readonly warnings: readonly string[] } {
  const warnings: string[] = [];
  const log: Log = {
    ...silentLog,
    warn: (message, fields, error) => void warnings.push(`${message}: ${JSON.stringify(fields)}: ${messageOf(error)}`),
  };
  return { log, warnings };
}

/** Its machine ends before it can be saved. */
async function unluckyBlueprint(directory: string): Promise<Blueprint> {
  const path = join(directory, "scratch");
  await writeFile(path, "x");
  const { parts } = blueprint;
  const files = { ...parts.files, parts: { ...parts.files.parts, scratch: { ...testPart("scratch"), path } } };
  return { ...blueprint, parts: { ...parts, files } };
}

test("a machine that cannot be saved leaves a warning and nothing else, once", async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), "templates-"));
  const unlucky = await unluckyBlueprint(directory.path);
  const { log, warnings } = warningsOnly();
  const dir = join(directory.path, "vm-templates");
  await using templates = await MachineTemplates.open(dir, { log });
  templates.want(unlucky);
  while (warnings.length === 0) await sleep(5, undefined, { signal });
  templates.want(unlucky);
  await templates[Symbol.asyncDispose]();
  assert.equal(warnings.length, 1);
  assert.match(warnings[0] ?? "", /microVMs of its size boot.*to be saved ended/);
  assert.deepEqual(await readdir(dir), []);
});

test("one is made at a time: the next size has to be asked for again", async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), "templates-"));
  const one = await unluckyBlueprint(directory.path);
  const other = { ...one, machine: { ...one.machine, vcpus: 2 } };
  const { log, warnings } = warningsOnly();
  await using templates = await MachineTemplates.open(join(directory.path, "vm-templates"), { log });
  templates.want(one);
  templates.want(other);
  while (warnings.length === 0) await sleep(5, undefined, { signal });
  await sleep(50);
  assert.equal(warnings.length, 1);
  templates.want(other);
  while (warnings.length === 1) await sleep(5, undefined, { signal });
});

async function realBlueprint(memoryMib = 128): Promise<Blueprint> {
  const options = resolveVmOptions({
    accelerator: "tcg",
    qemuPath: realQemu,
    guestDir: builtGuest,
    verdictFile: "/nonexistent",
    defaultMemoryBytes: 2 ** 29,
    defaultVcpus: 1,
    bootId: "this-boot",
  });
  const parts = await findBootParts({ ...options, accelerator: "tcg" }, { signal });
  const { accelerator, files } = parts;
  return { machine: { accelerator, memoryMib, vcpus: 1, systemBytes: files.parts.system.sizeBytes, beginning: "boot" }, parts };
}

test("the real guest is saved beside those of other sizes: what nobody can use, and what was not used for longest, goes", {
  skip: noGuest,
}, async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), "templates-"));
  const dir = join(directory.path, "vm-templates");
  await mkdir(dir);
  const real = await realBlueprint();
  const sizes = await Promise.all([...Array(8).keys()].map((index) => realBlueprint(256 + 2 * index)));
  const foreign = { ...real, parts: { ...real.parts, qemu: { ...real.parts.qemu, version: "6.9" } } };
  for (const one of [...sizes, foreign]) await writeFile(join(dir, stateName(one, "state")), "state");
  await using templates = await MachineTemplates.open(dir, { log: silentLog });
  // Used again, all but the second.
  for (const [index, size] of sizes.entries()) if (index !== 1) assert.ok(templates.find(size));
  templates.want(real);
  while (templates.find(real) === undefined) await sleep(20, undefined, { signal });
  const path = templates.find(real) ?? "";
  await templates[Symbol.asyncDispose]();
  const kept = [basename(path), ...sizes.toSpliced(1, 1).map((one) => stateName(one, "state"))];
  assert.deepEqual((await readdir(dir)).sort(), kept.sort());
  const { size, mode } = await stat(path);
  assert.equal(mode & 0o777, 0o600);
  // What the guest has used of its memory; the system disk is not in it.
  assert.ok(size > 2 ** 20 && size < 64 * 2 ** 20, `${size} bytes`);
});

test("a room that closes takes the machine along", { skip: noGuest }, async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), "templates-"));
  const dir = join(directory.path, "vm-templates");
  const templates = await MachineTemplates.open(dir, { log: silentLog });
  templates.want(await realBlueprint());
  await sleep(200);
  await templates[Symbol.asyncDispose]();
  assert.deepEqual(await readdir(dir), []);
});
