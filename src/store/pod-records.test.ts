import assert from "node:assert/strict";
import { mkdir, mkdtempDisposable, readdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { silentLog } from "../lib/log.ts";
import { readPodRecords, rebuild, removePodRecord, writePodRecord } from "./pod-records.ts";
import { openStore } from "./store.ts";

async function podsDir(...podIds: readonly string[]): Promise<AsyncDisposable & { readonly path: string }> {
  const dir = await mkdtempDisposable(join(tmpdir(), "aurae-cri-pods-"));
  for (const podId of podIds) await mkdir(join(dir.path, podId));
  return dir;
}

test("a database is rebuilt from the pods' own records; bad ones are reported and left", async () => {
  await using pods = await podsDir("p1", "p2", "torn", "newer", "empty", "moved");
  await writePodRecord(join(pods.path, "p1"), { pod: { id: "p1" }, containers: [{ id: "c1" }, { id: "c2" }] });
  await writePodRecord(join(pods.path, "p2"), { pod: { id: "p2" }, containers: [] });
  await writePodRecord(join(pods.path, "moved"), { pod: { id: "elsewhere" }, containers: [] });
  await writeFile(join(pods.path, "torn", "record.json"), '{"version":1,"pod"');
  await writeFile(join(pods.path, "newer", "record.json"), '{"version":2}');
  const { store } = await openStore({ path: join(pods.path, "state.db"), log: silentLog });
  await using _ = store;
  const { pods: count, bad } = await rebuild(store, pods.path);
  assert.equal(count, 2);
  assert.deepEqual(await store.list("pod"), [
    { id: "p1", value: { id: "p1" } },
    { id: "p2", value: { id: "p2" } },
  ]);
  assert.deepEqual(
    (await store.list("container")).map(({ id }) => id),
    ["c1", "c2"],
  );
  assert.deepEqual(new Set(bad.map(({ path }) => path.split("/").at(-2))), new Set(["empty", "moved", "newer", "torn"]));
  assert.match(bad.find(({ path }) => path.includes("newer"))?.reason ?? "", /version 2, this release knows 1/);
});

test("concurrent writes of one pod end in the last one; a removal counts as one", async () => {
  await using pods = await podsDir("p1");
  const dir = join(pods.path, "p1");
  const write = (n: number): Promise<void> => writePodRecord(dir, { pod: { id: "p1" }, containers: [{ id: `c${n}` }] });
  await Promise.all([write(1), write(2), write(3)]);
  assert.deepEqual((await readPodRecords(pods.path)).records, [{ pod: { id: "p1" }, containers: [{ id: "c3" }] }]);
  await Promise.all([write(4), removePodRecord(dir), removePodRecord(dir)]);
  assert.deepEqual(await readdir(dir), []);
});

test("a pod directory that is gone fails the write and is not made again; a missing pods directory holds none", async () => {
  await using pods = await podsDir();
  await assert.rejects(writePodRecord(join(pods.path, "gone"), { pod: { id: "gone" }, containers: [] }), { code: "ENOENT" });
  await removePodRecord(join(pods.path, "gone"));
  assert.deepEqual(await readdir(pods.path), []);
  assert.deepEqual(await readPodRecords(join(pods.path, "none")), { records: [], bad: [] });
});
