import assert from "node:assert/strict";
import { mkdtempDisposable, readdir, readFile, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { writeFileAtomic } from "./atomic-write.ts";

test("replaces the content, with the mode asked for whatever the umask, and leaves nothing beside it", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "aurae-cri-atomic-"));
  const path = join(dir.path, "file");
  await writeFileAtomic(path, "one", { mode: 0o666 });
  assert.equal((await stat(path)).mode & 0o777, 0o666);
  await writeFileAtomic(path, Buffer.from("two"));
  assert.equal(await readFile(path, "utf8"), "two");
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(dir.path), ["file"]);
});

test("a failure leaves the old state", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "aurae-cri-atomic-"));
  await assert.rejects(writeFileAtomic(join(dir.path, "missing", "file"), "x"), { code: "ENOENT" });
  await assert.rejects(writeFileAtomic(dir.path, "x"), { code: "EISDIR" });
  assert.deepEqual(await readdir(dir.path), []);
});
