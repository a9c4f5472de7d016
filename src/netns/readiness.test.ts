import assert from "node:assert/strict";
import { mkdir, rename, rm, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { silentLog } from "../lib/log.ts";
import { type NetworkRoom, openNetwork } from "./network.ts";
import { createFakePlugins, createTestBed, type FakePlugins, requestFor, type TestBed } from "./test-bed.ts";

const signal = new AbortController().signal;

interface FakeBed extends TestBed {
  readonly fakes: FakePlugins;
}

/** Polls so seldom that only the directory's events can explain a change within a test. */
async function createFakeBed(pollIntervalMs = 60_000): Promise<FakeBed> {
  const bed = await createTestBed({ pollIntervalMs });
  const fakes = await createFakePlugins(bed.directory, ["first"]);
  return { ...bed, fakes, options: { ...bed.options, binDirs: ["/no/bin", fakes.binDir] } };
}

function network(name: string, more: Record<string, unknown> = {}): Record<string, unknown> {
  return { cniVersion: "1.0.0", name, plugins: [{ type: "first" }], ...more };
}

/** What the status says in a line: the network's name or the message. */
function said(room: NetworkRoom): string {
  const status = room.status();
  return status.ready ? status.networkName : `${status.reason}: ${status.message}`;
}

async function until(room: NetworkRoom, expected: string | RegExp): Promise<void> {
  const deadlineMs = Date.now() + 5_000;
  while (typeof expected === "string" ? said(room) !== expected : !expected.test(said(room))) {
    assert.ok(Date.now() < deadlineMs, `want ${expected}, have ${said(room)}`);
    await sleep(10);
  }
}

test("readiness follows the directory: added, broken, mended, replaced by a file of a lower name, removed", async () => {
  await using bed = await createFakeBed();
  await using room = await openNetwork(bed.options, { log: silentLog });
  assert.match(said(room), /^NetworkPluginNotReady: .*net\.d: no CNI configuration \(looked for .*; it is empty\)$/);
  await bed.writeConfig("10-a.conflist", network("a"));
  await until(room, "a");
  await bed.writeConfig("10-a.conflist", "{");
  await until(room, /net\.d\/10-a\.conflist: is not JSON/);
  await bed.writeConfig("10-a.conflist", network("a"));
  await until(room, "a");
  await bed.writeConfig("05-b.conflist", network("b"));
  await until(room, "b");
  await unlink(join(bed.options.confDir, "05-b.conflist"));
  await until(room, "a");
});

test("a directory that comes later, or is replaced, is noticed", async () => {
  await using bed = await createFakeBed(30);
  const { confDir } = bed.options;
  await rm(confDir, { recursive: true });
  await using room = await openNetwork(bed.options, { log: silentLog });
  assert.match(said(room), /net\.d: no CNI configuration: the directory cannot be read \(ENOENT/);
  await mkdir(confDir);
  await bed.writeConfig("10-a.conflist", network("a"));
  await until(room, "a");
  await rename(confDir, `${confDir}.old`);
  await until(room, /ENOENT/);
  await mkdir(confDir);
  await bed.writeConfig("10-b.conflist", network("b"));
  await until(room, "b");
});

test("a missing plugin is named with the directories searched, and noticed when it comes", async () => {
  await using bed = await createFakeBed(30);
  await bed.writeConfig("10-a.conflist", network("a", { plugins: [{ type: "first" }, { type: "calico" }] }));
  await using room = await openNetwork(bed.options, { log: silentLog });
  assert.match(said(room), /10-a\.conflist: CNI plugin 'calico' not found in \/no\/bin, .*\/bin$/);
  await writeFile(join(bed.fakes.binDir, "calico"), '#!/bin/sh\necho \'{"supportedVersions":["1.0.0"]}\'\n', { mode: 0o755 });
  await until(room, "a");
});

test("plugins that do not speak the list's version are named with what they speak", async () => {
  await using bed = await createFakeBed();
  await bed.fakes.behave("first", "VERSION", 'echo \'{"supportedVersions":["0.3.1"]}\'');
  await bed.writeConfig("10-a.conflist", network("a"));
  await using room = await openNetwork(bed.options, { log: silentLog });
  assert.match(said(room), /no plugin chain for cniVersion 1\.0\.0: first speaks 0\.3\.1$/);
});

test("a plugin that does not say what it speaks is tried", async () => {
  await using bed = await createFakeBed();
  await bed.fakes.behave("first", "VERSION", "exit 1");
  await bed.writeConfig("10-a.conflist", network("a"));
  await using room = await openNetwork(bed.options, { log: silentLog });
  assert.equal(said(room), "a");
});

test("STATUS of a 1.1.0 network makes it not ready, in the plugin's words; older networks are not asked", async () => {
  await using bed = await createFakeBed();
  await bed.fakes.behave("first", "STATUS", `echo '{"cniVersion":"1.1.0","code":50,"msg":"agent is down"}'; exit 1`);
  await bed.writeConfig("10-a.conflist", network("a", { cniVersion: "1.1.0" }));
  await using room = await openNetwork(bed.options, { log: silentLog });
  assert.match(said(room), /10-a\.conflist: CNI plugin first \(STATUS\): agent is down \(code 50\)$/);
  assert.deepEqual(await bed.fakes.sequence(), ["STATUS first"]);
  await bed.writeConfig("10-a.conflist", network("a"));
  await until(room, "a");
  assert.deepEqual(await bed.fakes.sequence(), ["STATUS first"]);
});

test("STATUS is not asked at each look, and a slow one does not hold the status", async () => {
  await using bed = await createFakeBed(10);
  await bed.writeConfig("10-a.conflist", network("a", { cniVersion: "1.1.0" }));
  await using room = await openNetwork(bed.options, { log: silentLog });
  await sleep(300);
  assert.equal(said(room), "a");
  assert.deepEqual(await bed.fakes.sequence(), ["STATUS first"]);
});

test("attach reads the directory itself, and says why it cannot", async () => {
  await using bed = await createFakeBed();
  await using room = await openNetwork(bed.options, { log: silentLog });
  const netns = await bed.addNamespace("a");
  await assert.rejects(room.attach(requestFor("pod1", netns), { signal }), /^NetnsError: network not ready: .*it is empty/);
  await bed.writeConfig("10-a.conflist", network("a"));
  await room.attach(requestFor("pod1", netns), { signal });
  await room.detach("pod1", { signal });
});
