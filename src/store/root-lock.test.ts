import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempDisposable, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { StoreError } from "./errors.ts";
import { openInstanceId } from "./instance.ts";
import { lockDirectory } from "./root-lock.ts";

const module = new URL("./root-lock.ts", import.meta.url).href;
const holder = `const { lockDirectory } = await import(${JSON.stringify(module)});
const lock = lockDirectory(process.argv[1]); console.log("held"); setInterval(() => lock, 1000);`;

test("a second holder is refused with the pid of the first; SIGKILL frees the lock", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "aurae-cri-lock-"));
  const root = join(dir.path, "deep", "root");
  const child = spawn(process.execPath, ["--input-type=module", "-e", holder, root], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  try {
    await once(child.stdout, "data");
    assert.throws(
      () => lockDirectory(root),
      (error: StoreError) => error.fact.code === "ERR_ROOT_LOCKED" && error.fact.pid === child.pid && error.message.includes(root),
    );
  } finally {
    child.kill("SIGKILL");
    await exited;
  }
  using _ = lockDirectory(root);
});

test("the lock is refused within one process too, and given up by disposing", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "aurae-cri-lock-"));
  {
    using _ = lockDirectory(dir.path);
    assert.throws(() => lockDirectory(dir.path), /held by another aurae-cri \(pid \d+\)/);
    assert.throws(() => lockDirectory(dir.path), /held by another aurae-cri/);
    await rm(join(dir.path, "daemon.pid"));
    assert.throws(() => lockDirectory(dir.path), /held by another aurae-cri: stop it/);
  }
  using _ = lockDirectory(dir.path);
});

test("an instance id is made once and a spoilt one is not replaced", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "aurae-cri-instance-"));
  const instanceId = await openInstanceId(dir.path);
  assert.match(instanceId, /^[0-9a-f]{8}$/);
  assert.equal(await openInstanceId(dir.path), instanceId);
  await writeFile(join(dir.path, "instance-id"), "");
  await assert.rejects(openInstanceId(dir.path), (error: StoreError) => error.fact.code === "ERR_INSTANCE_ID");
});
