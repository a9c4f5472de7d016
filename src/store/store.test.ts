import assert from "node:assert/strict";
import { mkdir, mkdtempDisposable, readdir, readFile, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { silentLog } from "../lib/log.ts";
import type { RecordWrite } from "../runtime/ports.ts";
import type { StoreError } from "./errors.ts";
import { type OpenStore, openStore } from "./store.ts";

async function tempDir(): Promise<AsyncDisposable & { readonly path: string }> {
  return await mkdtempDisposable(join(tmpdir(), "aurae-cri-store-"));
}

function put(id: string, value: unknown): RecordWrite {
  return { op: "put", kind: "pod", id, value };
}

async function open(path: string): Promise<OpenStore> {
  return (await openStore({ path, log: silentLog })).store;
}

/** A database with enough in it that damage in the middle hits something. */
async function fill(path: string): Promise<void> {
  await using store = await open(path);
  await store.write(Array.from({ length: 200 }, (_, number) => put(`p${number}`, { filler: "y".repeat(500) })));
}

test("records survive closing and opening; kinds are apart; put replaces; delete of nothing is fine", async () => {
  await using dir = await tempDir();
  const path = join(dir.path, "state.db");
  {
    const { store, condition } = await openStore({ path, log: silentLog });
    await using _ = store;
    assert.equal(condition, "created");
    await store.write([put("b", { n: 1 }), put("a", [1, null, "ü"]), { op: "put", kind: "image", id: "b", value: "i" }]);
    await store.write([put("b", { n: 2 }), { op: "delete", kind: "container", id: "none" }]);
    await store.write([]);
  }
  const { store, condition } = await openStore({ path, log: silentLog });
  await using _ = store;
  assert.equal(condition, "opened");
  assert.deepEqual(await store.list("pod"), [
    { id: "a", value: [1, null, "ü"] },
    { id: "b", value: { n: 2 } },
  ]);
  assert.deepEqual(await store.list("image"), [{ id: "b", value: "i" }]);
  assert.deepEqual(await store.list("layer"), []);
});

test("a thousand concurrent writes keep their order, and a list sees what was asked for before it", async () => {
  await using dir = await tempDir();
  await using store = await open(join(dir.path, "state.db"));
  const writes = Array.from({ length: 1_000 }, (_, number) => store.write([put(`p${number % 10}`, number)]));
  const listed = store.list("pod");
  await Promise.all(writes);
  assert.deepEqual(
    (await listed).map(({ value }) => value),
    [990, 991, 992, 993, 994, 995, 996, 997, 998, 999],
  );
});

test("closing waits for what was asked for and refuses what comes after", async () => {
  await using dir = await tempDir();
  const path = join(dir.path, "state.db");
  const store = await open(path);
  const write = store.write([put("a", 1)]);
  const closed = store[Symbol.asyncDispose]();
  await assert.rejects(store.write([put("b", 1)]), (error: StoreError) => error.fact.code === "ERR_STORE_CLOSED");
  await write;
  await closed;
  assert.deepEqual(await readdir(dir.path), ["state.db"]);
});

test("a value that is not JSON is refused by name and harms nobody else", async () => {
  await using dir = await tempDir();
  await using store = await open(join(dir.path, "state.db"));
  const fine = store.write([put("a", 1)]);
  await assert.rejects(store.write([put("b", { n: 1n })]), /record pod b does not fit JSON/);
  await assert.rejects(store.write([put("b", undefined)]), /record pod b has no value/);
  await fine;
});

test("an armed failpoint of the worker fails the write, and the store goes on", async () => {
  await using dir = await tempDir();
  const path = join(dir.path, "state.db");
  const { store } = await openStore({ path, log: silentLog, failpoints: "store.commit.before=error" });
  await using _ = store;
  await assert.rejects(store.write([put("a", 1)]), (error: StoreError) => error.fact.code === "ERR_STORE_WRITE");
  assert.deepEqual(await store.list("pod"), []);
});

test("a newer schema is refused and left as it is", async () => {
  await using dir = await tempDir();
  const path = join(dir.path, "state.db");
  await fill(path);
  {
    using db = new DatabaseSync(path);
    db.exec("PRAGMA user_version = 99");
  }
  const before = await readFile(path);
  await assert.rejects(open(path), (error: StoreError) => error.fact.code === "ERR_STORE_NEWER" && error.fact.found === 99);
  assert.deepEqual(await readFile(path), before);
});

for (const [name, damage] of [
  ["garbage in its first page", (path: string) => writeFile(path, "this is no database, but it is longer than a header".repeat(100))],
  ["cut in half", async (path: string) => truncate(path, (await readFile(path)).length >> 1)],
  [
    "pages overwritten in the middle",
    async (path: string) => {
      const bytes = await readFile(path);
      await writeFile(path, bytes.fill(0xa5, 4_096 * 3, 4_096 * 6));
    },
  ],
  [
    "another program's database",
    async (path: string) => {
      await truncate(path, 0);
      using db = new DatabaseSync(path);
      db.exec("CREATE TABLE other (x); PRAGMA user_version = 1");
    },
  ],
] as const) {
  test(`a damaged database is moved aside, never deleted: ${name}`, async () => {
    await using dir = await tempDir();
    const path = join(dir.path, "state.db");
    await fill(path);
    await damage(path);
    const damaged = await readFile(path);
    const { store, condition } = await openStore({ path, log: silentLog });
    await using _ = store;
    assert.ok(typeof condition === "object", JSON.stringify(condition));
    assert.notEqual(condition.reason, "");
    assert.deepEqual(await readFile(condition.quarantined), damaged);
    assert.deepEqual(await store.list("pod"), []);
    await store.write([put("new", 1)]);
  });
}

test("a missing database whose journal was left counts as damaged; an empty file as new", async () => {
  await using dir = await tempDir();
  const path = join(dir.path, "state.db");
  await writeFile(`${path}-wal`, "left over");
  const first = await openStore({ path, log: silentLog });
  await first.store[Symbol.asyncDispose]();
  assert.ok(typeof first.condition === "object");
  assert.equal(await readFile(`${first.condition.quarantined}-wal`, "utf8"), "left over");
  await writeFile(path, "");
  const second = await openStore({ path, log: silentLog });
  await second.store[Symbol.asyncDispose]();
  assert.equal(second.condition, "created");
});

test("a path that cannot be opened is an error, not damage", async () => {
  await using dir = await tempDir();
  const path = join(dir.path, "directory");
  await mkdir(path);
  for (const bad of [join(dir.path, "missing", "state.db"), path]) {
    await assert.rejects(open(bad), (error: StoreError) => error.fact.code === "ERR_STORE_OPEN" && error.message.includes(bad));
  }
  assert.deepEqual(await readdir(dir.path), ["directory"]);
});
