import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempDisposableSync, readFileSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { HostError, type HostFact } from "./errors.ts";
import { isAlive, type ProcessIdentity, terminate } from "./pids.ts";
import { spawnDetached } from "./spawn-detached.ts";

const signal = new AbortController().signal;
const env = { PATH: "/usr/bin:/bin" };

interface Bed extends Disposable {
  readonly logFile: string;
  readonly log: () => string;
}

function createBed(): Bed {
  const directory = mkdtempDisposableSync(join(tmpdir(), "aurae-spawn-"));
  const logFile = join(directory.path, "auraed.log");
  return { logFile, log: () => readFileSync(logFile, "utf8"), [Symbol.dispose]: () => directory.remove() };
}

function shell(script: string): { file: string; args: readonly string[]; env: Record<string, string> } {
  return { file: "/bin/sh", args: ["-c", script], env };
}

function failsWith(code: HostFact["code"], message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof HostError, String(error));
    assert.equal(error.fact.code, code);
    assert.match(error.message, message);
    return true;
  };
}

function isGroupThere(pid: number): boolean {
  try {
    return process.kill(-pid, 0);
  } catch {
    return false;
  }
}

test("a program that says ready is left running, in a session of its own, its log appended", async () => {
  using bed = createBed();
  const options = { signal, readyTimeoutMs: 5_000, logFile: bed.logFile };
  const first = await spawnDetached(shell("echo hello >&2; echo starting; echo ready; exec sleep 60"), options);
  const second = await spawnDetached(shell("echo again >&2; echo ready; exec sleep 60"), options);
  assert.equal(isAlive(first), true);
  assert.equal(bed.log(), "hello\nagain\n");
  assert.equal(statSync(bed.logFile).mode & 0o777, 0o600);
  const session = readFileSync(`/proc/${first.pid}/stat`, "utf8").split(" ")[5];
  assert.equal(session, String(first.pid));
  await Promise.all([terminate(first, { signal }), terminate(second, { signal })]);
  assert.equal(isAlive(first), false);
});

test("one that ends before it is ready is an error with the end of its own log", async () => {
  using bed = createBed();
  const options = { signal, readyTimeoutMs: 5_000, logFile: bed.logFile };
  await assert.rejects(
    spawnDetached(shell("echo old >&2; exit 1"), options),
    failsWith("ERR_PROCESS_NOT_READY", /exit code 1.*ends with: old$/),
  );
  const second = spawnDetached(shell("echo cannot bind >&2; echo almost; exit 7"), options);
  await assert.rejects(second, failsWith("ERR_PROCESS_NOT_READY", /exit code 7\); its log ends with: cannot bind$/));
  const unknown = spawnDetached({ file: "/no/auraed" }, options);
  await assert.rejects(unknown, failsWith("ERR_PROCESS_NOT_FOUND", /\/no\/auraed not found/));
});

test("one that is late or cancelled is killed with all it started", async () => {
  using bed = createBed();
  const late = spawnDetached(shell("echo $$ >&2; sleep 60"), { signal, readyTimeoutMs: 100, logFile: bed.logFile });
  await assert.rejects(late, failsWith("ERR_PROCESS_TIMEOUT", /within 100 ms/));
  const pid = Number(bed.log().trim());
  // Its child may stay a zombie for a moment, until pid 1 has reaped it.
  while (isGroupThere(pid)) await sleep(5);
  const caller = new AbortController();
  const cancelled = spawnDetached(shell("sleep 60"), { signal: caller.signal, readyTimeoutMs: 5_000, logFile: bed.logFile });
  caller.abort();
  await assert.rejects(cancelled, failsWith("ERR_PROCESS_ABORTED", /cancelled/));
});

test("the program outlives the process that started it, which may end without it", async () => {
  using bed = createBed();
  const script = `
    import { spawnDetached } from ${JSON.stringify(new URL("spawn-detached.ts", import.meta.url).href)};
    const options = { signal: new AbortController().signal, readyTimeoutMs: 5000, logFile: ${JSON.stringify(bed.logFile)} };
    console.log(JSON.stringify(await spawnDetached({ file: "/bin/sh", args: ["-c", "echo ready; exec sleep 60"], env: { PATH: "/bin" } }, options)));`;
  const daemon = spawn(process.execPath, ["--input-type=module", "--eval", script], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(daemon, "exit");
  let output = "";
  for await (const chunk of daemon.stdout.setEncoding("utf8")) output += String(chunk);
  assert.deepEqual(await ended, [0, null]);
  const identity = JSON.parse(output) as ProcessIdentity;
  assert.equal(isAlive(identity), true);
  await terminate(identity, { signal });
});

test("an identity is not another process's, nor a zombie's", async () => {
  const child = spawn("sleep", ["60"], { stdio: "ignore" });
  await once(child, "spawn");
  const pid = child.pid ?? 0;
  const startTime = Number(readFileSync(`/proc/${pid}/stat`, "utf8").split(" ")[21]);
  assert.equal(isAlive({ pid, startTime }), true);
  assert.equal(isAlive({ pid, startTime: startTime + 1 }), false);
  // Whose pid is another's by now is left alone.
  await terminate({ pid, startTime: startTime - 1 }, { signal });
  assert.equal(isAlive({ pid, startTime }), true);
  await assert.rejects(terminate({ pid, startTime }, { signal: AbortSignal.abort(new Error("stop")) }), /stop/);
  await terminate({ pid, startTime }, { signal });
  assert.equal(isAlive({ pid, startTime }), false);
  await sleep(10);
  assert.equal(child.signalCode, "SIGKILL");
});
