import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempDisposable } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { silentLog } from "../lib/log.ts";
import { openStore } from "./store.ts";

const writer = new URL("./crash-writer.ts", import.meta.url).pathname;

interface Life {
  readonly acknowledged: readonly number[];
  readonly signal: NodeJS.Signals | null;
}

/** Runs the writer from transaction `first`; kills it `killAfterMs` after its first acknowledgement, unless a failpoint does. */
async function live(path: string, first: number, end: { readonly killAfterMs: number } | { readonly failpoints: string }): Promise<Life> {
  const failpoints = "failpoints" in end ? end.failpoints : "";
  const child = spawn(process.execPath, [writer, path, String(first), failpoints], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit") as Promise<[number | null, NodeJS.Signals | null]>;
  const acknowledged: number[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    acknowledged.push(Number(line.slice("ack ".length)));
    if (acknowledged.length === 1 && "killAfterMs" in end) setTimeout(() => child.kill("SIGKILL"), end.killAfterMs);
  }
  const [, signal] = await exited;
  return { acknowledged, signal };
}

/** Which members of each transaction are in the store. */
async function readMembers(path: string): Promise<Map<number, number>> {
  const { store, condition } = await openStore({ path, log: silentLog });
  await using _ = store;
  assert.equal(condition, "opened");
  const members = new Map<number, number>();
  for (const { id } of await store.list("pod")) {
    const number = Number(id.split("-")[0]);
    members.set(number, (members.get(number) ?? 0) + 1);
  }
  return members;
}

function assertWhole(members: Map<number, number>, acknowledged: readonly number[]): number {
  for (const [number, count] of members) assert.equal(count, 3, `transaction ${number} is there in part`);
  const last = Math.max(...members.keys(), ...acknowledged);
  for (const number of acknowledged) {
    const deletable = number <= last - 10;
    assert.ok(deletable || members.has(number), `acknowledged transaction ${number} is gone (last ${last})`);
  }
  return last;
}

test("kill -9 at any moment: acknowledged writes are there, the others whole or not at all", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "aurae-cri-store-"));
  const path = join(dir.path, "state.db");
  let first = 100;
  for (let round = 0; round < 12; round++) {
    const { acknowledged, signal } = await live(path, first, { killAfterMs: round * 7 });
    assert.equal(signal, "SIGKILL");
    first = assertWhole(await readMembers(path), acknowledged) + 20;
  }
});

for (const [point, there] of [
  ["store.commit.before", false],
  ["store.commit.after", true],
] as const) {
  test(`killed at ${point}: nothing acknowledged, the transaction ${there ? "there" : "not there"}`, async () => {
    await using dir = await mkdtempDisposable(join(tmpdir(), "aurae-cri-store-"));
    const path = join(dir.path, "state.db");
    const { acknowledged, signal } = await live(path, 1, { failpoints: `${point}=kill` });
    assert.equal(signal, "SIGKILL");
    assert.deepEqual(acknowledged, []);
    const members = await readMembers(path);
    assert.equal(members.get(1), there ? 3 : undefined);
  });
}
