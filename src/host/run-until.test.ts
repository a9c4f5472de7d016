import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtempDisposable, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { HostError } from "./errors.ts";
import { type RunUntilOptions, runUntil } from "./run-until.ts";

const signal = AbortSignal.timeout(60_000);

function watch(script: string, options: Partial<RunUntilOptions> = {}) {
  return runUntil({ file: "/bin/sh", args: ["-c", script] }, { signal, timeoutMs: 5_000, sign: /^ready: yes\b/, ...options });
}

test("the sign ends the program at once, also in pieces", async () => {
  const watched = await watch("echo not ready: yes; printf 'read'; sleep 0.05; echo 'y: yes, indeed'; sleep 60");
  assert.equal(watched.outcome, "sign");
  assert.equal(watched.stdoutTail, "not ready: yes\nready: yes, indeed\n");
  assert.ok(watched.elapsedMs < 4_000, `${watched.elapsedMs}`);
});

test("a program that ends by itself tells how", async () => {
  const coded = await watch("echo said; echo why >&2; exit 7");
  assert.deepEqual(
    [coded.outcome, coded.exitCode, coded.signal, coded.stdoutTail, coded.stderrTail],
    ["ended", 7, undefined, "said\n", "why\n"],
  );
  const killed = await watch("kill -SEGV $$");
  assert.equal(killed.outcome, "ended");
  assert.ok(killed.signal === "SIGSEGV" || killed.exitCode === 139, JSON.stringify(killed));
});

test("at the deadline the whole process group is gone when the promise settles", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "run-until-"));
  const pidFile = join(dir.path, "pid");
  const watched = await watch(`sleep 61 & echo $! > ${pidFile}; echo begun; wait`, { timeoutMs: 300 });
  assert.deepEqual([watched.outcome, watched.stdoutTail], ["timeout", "begun\n"]);
  assert.ok(watched.elapsedMs >= 290 && watched.elapsedMs < 3_000, `${watched.elapsedMs}`);
  await untilGone((await readFile(pidFile, "utf8")).trim());
});

/** Its parent is dead: init reaps it in its own time. */
async function untilGone(pid: string): Promise<void> {
  for (let tries = 0; existsSync(`/proc/${pid}`) && !(await isZombie(pid)); tries++) {
    assert.ok(tries < 100, `${pid} lives`);
    await sleep(10);
  }
}

async function isZombie(pid: string): Promise<boolean> {
  return /^State:\tZ/m.test(await readFile(`/proc/${pid}/status`, "utf8").catch(() => "State:\tZ"));
}

test("an abort kills it too, and is an error", async () => {
  const caller = new AbortController();
  setTimeout(() => caller.abort(new Error("closing")), 50);
  await assert.rejects(watch("sleep 60", { signal: caller.signal }), (error: unknown) => {
    return error instanceof HostError && error.fact.code === "ERR_PROCESS_ABORTED";
  });
  await assert.rejects(watch("sleep 60", { signal: AbortSignal.abort() }), { name: "HostError" });
});

test("of much output the newest is kept, and streams are open from descriptor 3 on", async () => {
  const watched = await watch("seq 1 20000; echo x >&3; echo y >&4; echo 'ready: yes'; sleep 60", { tailBytes: 100, streams: 2 });
  assert.equal(watched.outcome, "sign");
  assert.equal(watched.stdoutTail.length, 100);
  assert.match(watched.stdoutTail, /19999\n20000\nready: yes\n$/);
});

test("what is done at the sign is done with a program that runs", async () => {
  let before: string | undefined;
  await using dir = await mkdtempDisposable(join(tmpdir(), "run-until-"));
  const pidFile = join(dir.path, "pid");
  const atSign = async () => {
    before = (await readFile(pidFile, "utf8")).trim();
    assert.ok(!(await isZombie(before)));
  };
  await watch(`echo $$ > ${pidFile}; echo 'ready: yes'; sleep 60`, { atSign });
  await untilGone(before ?? "");
  const failing = watch("echo 'ready: yes'; sleep 60", { atSign: () => Promise.reject(new Error("not done")) });
  await assert.rejects(failing, { message: "not done" });
});

test("a process that is killed takes the program along", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "run-until-"));
  const pidFile = join(dir.path, "pid");
  const program = `
    import { runUntil } from ${JSON.stringify(new URL("run-until.ts", import.meta.url).href)};
    const command = { file: "/bin/sh", args: ["-c", "echo $$ > ${pidFile}.new; mv ${pidFile}.new ${pidFile}; sleep 60"] };
    await runUntil(command, { signal: new AbortController().signal, timeoutMs: 60_000, sign: /never/ });`;
  const watcher = spawn(process.execPath, ["--input-type=module", "--eval", program], { stdio: "inherit" });
  while (!existsSync(pidFile)) await sleep(10, undefined, { signal });
  watcher.kill("SIGKILL");
  await untilGone((await readFile(pidFile, "utf8")).trim());
});

test("a crash leaves no core file", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "run-until-"));
  await writeFile(join(dir.path, "limit"), "");
  const watched = await watch(`ulimit -c > ${join(dir.path, "limit")}`);
  assert.equal(watched.outcome, "ended");
  assert.equal(await readFile(join(dir.path, "limit"), "utf8"), "0\n");
});
