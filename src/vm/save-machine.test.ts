import assert from "node:assert/strict";
import { mkdtempDisposable, readFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { VmError } from "./errors.ts";
import { type FakeAnswer, type FakeCommand, openFakeQmp } from "./fake-qmp.ts";
import { QmpClient } from "./qmp.ts";
import { restoreMachine, saveMachine } from "./save-machine.ts";

const signal = AbortSignal.timeout(30_000);

function failsWith(code: string, message: RegExp) {
  return (error: unknown) => error instanceof VmError && error.fact.code === code && message.test(error.message);
}

/** Conversation with a QEMU that is in each of these states in turn, and stays in the last one. */
async function restoreThrough(...statuses: readonly string[]): Promise<readonly string[]> {
  await using directory = await mkdtempDisposable(join(tmpdir(), "restore-"));
  const said: string[] = [];
  let looks = 0;
  const answer = ({ execute, arguments: args }: FakeCommand): FakeAnswer => {
    said.push(execute === "migrate-incoming" ? `${execute} ${String(args["uri"])}` : execute);
    if (execute !== "query-status") return { return: {} };
    return { return: { status: statuses[Math.min(looks++, statuses.length - 1)] } };
  };
  await using qemu = await openFakeQmp(join(directory.path, "qmp"), answer);
  using qmp = await QmpClient.connect(qemu.path, { signal });
  await restoreMachine(qmp, { signal });
  return said;
}

test("a machine goes on once all of its state is there", async () => {
  const said = await restoreThrough("inmigrate", "inmigrate", "paused");
  const looks = ["query-status", "query-status", "query-status"];
  assert.deepEqual(said, ["migrate-set-capabilities", "migrate-incoming fd:7", ...looks, "cont"]);
});

test("a machine that is anything else is not let go on", async () => {
  await assert.rejects(restoreThrough("inmigrate", "internal-error"), failsWith("ERR_VM_TEMPLATE", /internal-error/));
});

interface Saving {
  readonly said: readonly string[];
  readonly state: string;
}

/** What a QEMU writes that then says `status` of it. */
async function save(written: string, status: string): Promise<Saving> {
  await using directory = await mkdtempDisposable(join(tmpdir(), "save-"));
  const said: string[] = [];
  const answer = ({ execute, arguments: args }: FakeCommand): FakeAnswer => {
    said.push(execute);
    if (execute === "migrate") connect(String(args["uri"]).replace("unix:", "")).end(written);
    return { return: execute === "query-migrate" ? { status } : {} };
  };
  await using qemu = await openFakeQmp(join(directory.path, "qmp"), answer);
  const [socketPath, statePath] = [join(directory.path, "state.sock"), join(directory.path, "state")];
  await saveMachine({ qmpPath: qemu.path, socketPath, statePath }, { signal });
  return { said, state: await readFile(statePath, "utf8") };
}

test("a machine is stopped, then saved whole", async () => {
  const { said, state } = await save("registers and memory", "completed");
  assert.equal(state, "registers and memory");
  assert.deepEqual(said, ["stop", "migrate-set-capabilities", "migrate-set-parameters", "migrate", "query-migrate"]);
});

test("a state that QEMU does not call complete is none", async () => {
  await assert.rejects(save("half", "failed"), failsWith("ERR_VM_TEMPLATE", /could not save its machine: failed/));
});
