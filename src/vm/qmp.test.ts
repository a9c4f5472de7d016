import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtempDisposable } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { VmError, type VmFact } from "./errors.ts";
import { type FakeAnswer, type FakeCommand, fakeGreeting, isListening, openFakeQmp } from "./fake-qmp.ts";
import { QmpClient, type QmpEvent } from "./qmp.ts";

const signal = AbortSignal.timeout(60_000);
const qemuPath = "/usr/bin/qemu-system-x86_64";
const noQemu = existsSync(qemuPath) ? false : `${qemuPath} is not installed`;

interface Monitor extends AsyncDisposable {
  readonly path: string;
}

/** QEMU with a machine that stands still. */
async function startQemu(): Promise<Monitor> {
  const directory = await mkdtempDisposable(join(tmpdir(), "qmp-test-"));
  const path = join(directory.path, "qmp.sock");
  const args = ["-S", "-M", "none", "-nodefaults", "-display", "none", "-qmp", `unix:${path},server=on,wait=off`];
  const child: ChildProcess = spawn(qemuPath, args, { stdio: "ignore" });
  while (!(await isListening(path))) {
    assert.equal(child.exitCode, null, "QEMU ended");
    await sleep(5);
  }
  return {
    path,
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill("SIGKILL");
        await once(child, "exit");
      }
      await directory.remove();
    },
  };
}

/** The fake, which answers the few commands of the shared cases as QEMU does. */
async function startFake(): Promise<Monitor> {
  const directory = await mkdtempDisposable(join(tmpdir(), "qmp-test-"));
  const fake = await openFakeQmp(join(directory.path, "qmp.sock"), ({ execute }): FakeAnswer => {
    if (execute === "query-status") return { return: { status: "prelaunch", running: false } };
    if (execute === "quit") return '{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-qmp-quit"}}\n';
    return { error: { class: "CommandNotFound", desc: `The command ${execute} has not been found` } };
  });
  return {
    path: fake.path,
    async [Symbol.asyncDispose]() {
      await fake[Symbol.asyncDispose]();
      await directory.remove();
    },
  };
}

function factIs(code: VmFact["code"], message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof VmError, String(error));
    assert.equal(error.fact.code, code, error.message);
    assert.match(error.message, message);
    return true;
  };
}

for (const [name, start, skip] of [
  ["QEMU", startQemu, noQemu],
  ["the fake", startFake, false],
] as const) {
  test(`${name}: commands are answered, refusals typed, events told`, { skip }, async () => {
    await using monitor = await start();
    const events: QmpEvent[] = [];
    using qmp = await QmpClient.connect(monitor.path, { signal, onEvent: (event) => void events.push(event) });
    const answers = await Promise.all(Array.from({ length: 20 }, () => qmp.execute("query-status", {}, { signal })));
    for (const answer of answers) assert.deepEqual((answer as { status: string }).status, "prelaunch");
    await assert.rejects(qmp.execute("no-such-thing", {}, { signal }), (error: unknown) => {
      assert.ok(error instanceof VmError && error.fact.code === "ERR_QMP_COMMAND");
      assert.equal(error.fact.class, "CommandNotFound");
      assert.match(error.message, /^QEMU refuses no-such-thing: The command no-such-thing has not been found$/);
      return true;
    });
    assert.deepEqual(await qmp.execute("query-status", {}, { signal }), answers[0]);
    qmp.execute("quit", {}, { signal }).catch(() => {});
    while (events.length === 0) await sleep(5, undefined, { signal });
    assert.deepEqual([events[0]?.name, events[0]?.data["reason"]], ["SHUTDOWN", "host-qmp-quit"]);
  });
}

test("one client after the other: the next waits for the end of the last, and a deadline ends its wait", { skip: noQemu }, async () => {
  await using monitor = await startQemu();
  const first = await QmpClient.connect(monitor.path, { signal });
  await assert.rejects(QmpClient.connect(monitor.path, { signal: AbortSignal.timeout(200) }), { name: "TimeoutError" });
  const waiting = QmpClient.connect(monitor.path, { signal });
  await sleep(50);
  first[Symbol.dispose]();
  await assert.rejects(first.execute("query-status", {}, { signal }), factIs("ERR_QMP_CLOSED", /closed/));
  using second = await waiting;
  assert.ok(await second.execute("query-status", {}, { signal }));
});

test("no socket, and a socket that nobody listens on, say that the machine is not running", async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), "qmp-test-"));
  const path = join(directory.path, "none.sock");
  await assert.rejects(QmpClient.connect(path, { signal }), factIs("ERR_QMP_CONNECT", /none\.sock: ENOENT: the machine is not running/));
  const aborted = AbortSignal.abort(new Error("gone"));
  await assert.rejects(QmpClient.connect(path, { signal: aborted }), /gone/);
});

async function fakeWith(
  run: (fake: Awaited<ReturnType<typeof openFakeQmp>>, answers: FakeCommand[]) => Promise<void>,
  greeting = fakeGreeting,
) {
  await using directory = await mkdtempDisposable(join(tmpdir(), "qmp-test-"));
  const commands: FakeCommand[] = [];
  await using fake = await openFakeQmp(
    join(directory.path, "qmp.sock"),
    (command) => {
      commands.push(command);
      return command.execute === "silence" ? "" : { return: {} };
    },
    { greeting },
  );
  await run(fake, commands);
}

for (const greeting of ["HTTP/1.1 200 OK", "{}", '{"QMP": 7}', '{"return": {}, "id": 1}']) {
  test(`a greeting '${greeting}' is none`, async () => {
    await fakeWith(async (fake) => {
      await assert.rejects(QmpClient.connect(fake.path, { signal }), factIs("ERR_QMP_PROTOCOL", /no greeting/));
    }, greeting);
  });
}

const nonsense: readonly (readonly [string, RegExp])[] = [
  ["hello\n", /not a message: hello/],
  ['{"return": {}}\n', /not a message/],
  ['{"id": "1", "return": {}}\n', /not a message/],
  ['{"id": 99, "return": {}}\n', /answer to command 99, which was never given/],
  ['{"event": 1}\n', /not a message/],
  ["\u001b[2J\u0007\n", /not a message: {2}\[2J $/],
  ["x".repeat(3 << 20), /a line of more than 1048576 bytes/],
  [`${"x".repeat(3 << 20)}\n`, /a line of more than 1048576 bytes/],
];
for (const [said, message] of nonsense) {
  test(`'${said.slice(0, 40).replaceAll(/\p{Cc}/gu, "?")}' ends the conversation, for whoever waits too`, async () => {
    await fakeWith(async (fake) => {
      using qmp = await QmpClient.connect(fake.path, { signal });
      const waiting = qmp.execute("silence", {}, { signal });
      fake.say(said);
      await assert.rejects(waiting, factIs("ERR_QMP_PROTOCOL", message));
      await assert.rejects(qmp.execute("query-status", {}, { signal }), factIs("ERR_QMP_CLOSED", /closed/));
    });
  });
}

test("an abandoned command's late answer is nobody's", async () => {
  await fakeWith(async (fake, commands) => {
    using qmp = await QmpClient.connect(fake.path, { signal });
    const caller = new AbortController();
    const waiting = qmp.execute("silence", {}, { signal: caller.signal });
    while (commands.length === 0) await sleep(2);
    caller.abort(new Error("left"));
    await assert.rejects(waiting, /left/);
    fake.say(`{"id": ${commands[0]?.id}, "return": {"late": true}}\n`);
    assert.deepEqual(await qmp.execute("query-status", {}, { signal }), {});
  });
});

test("a lost connection fails the command that waits", async () => {
  await fakeWith(async (fake) => {
    using qmp = await QmpClient.connect(fake.path, { signal });
    const waiting = qmp.execute("silence", {}, { signal });
    fake.hangUp();
    await assert.rejects(waiting, factIs("ERR_QMP_CLOSED", /QEMU has ended/));
  });
});

test("a refusal is told in one line of readable text, however long and wild", async () => {
  await fakeWith(async (fake, commands) => {
    using qmp = await QmpClient.connect(fake.path, { signal });
    const waiting = qmp.execute("silence", {}, { signal });
    while (commands.length === 0) await sleep(2);
    fake.say(`${JSON.stringify({ id: commands[0]?.id, error: { class: "GenericError", desc: `\n\u001b[1m${"x".repeat(9000)}` } })}\n`);
    await assert.rejects(waiting, factIs("ERR_QMP_COMMAND", /^QEMU refuses silence: {3}\[1mx{1019}$/));
  });
});
