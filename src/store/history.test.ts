import assert from "node:assert/strict";
import { mkdtempDisposable, readdir, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { History, idsByAge, readHistory } from "./history.ts";

test("the newest pods are kept, over a restart too", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "history-"));
  const path = join(dir.path, "history");
  const history = await History.open(path, { maxPods: 3 });
  for (const [index, id] of ["a", "b", "c", "d"].entries()) {
    await history.keep(id, { id, index });
    // The order of files written within one tick of the clock is nobody's.
    await utimes(join(path, `${id}.json`), index + 1, index + 1).catch(() => {});
  }
  assert.deepEqual(await idsByAge(path), ["b", "c", "d"]);
  assert.deepEqual(await readHistory(path, "c"), { id: "c", index: 2 });

  const reopened = await History.open(path, { maxPods: 3 });
  await reopened.keep("c", { id: "c", again: true });
  await reopened.keep("e", { id: "e" });
  assert.deepEqual([...(await idsByAge(path))].sort(), ["c", "d", "e"]);
  assert.deepEqual(await readHistory(path, "c"), { id: "c", again: true });
  assert.deepEqual(
    (await readdir(path)).filter((name) => name.startsWith(".")),
    [],
  );
});

test("a smaller bound holds from the start, a torn file is an error and no directory is no history", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "history-"));
  const path = join(dir.path, "history");
  assert.deepEqual(await idsByAge(path), []);
  const history = await History.open(path, { maxPods: 2 });
  await history.keep("a", {});
  await utimes(join(path, "a.json"), 1, 1);
  await history.keep("b", {});
  await History.open(path, { maxPods: 1 });
  assert.deepEqual(await idsByAge(path), ["b"]);
  await writeFile(join(path, "b.json"), '{"id":');
  await assert.rejects(readHistory(path, "b"), SyntaxError);
});
