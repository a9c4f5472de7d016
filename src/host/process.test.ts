import assert from "node:assert/strict";
import { mkdtempDisposableSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { HostError, type HostFact } from "./errors.ts";
import { isAlive, readStartTime } from "./pids.ts";
import { run } from "./process.ts";

const signal = new AbortController().signal;
const env = { PATH: "/usr/bin:/bin" };

function failsWith(code: HostFact["code"], message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof HostError, String(error));
    assert.equal(error.fact.code, code);
    assert.match(error.message, message);
    return true;
  };
}

test("a program's streams, input, environment and directory", async () => {
  const script = 'cat; pwd; echo "$A,$HOME" >&2; exit 3';
  const result = await run({ file: "/bin/sh", args: ["-c", script], env: { ...env, A: "b" }, stdin: "in\n", cwd: "/tmp" }, { signal });
  assert.deepEqual(result, { exitCode: 3, signal: undefined, stdout: "in\n/tmp\n", stderr: "b,\n" });
});

test("a program that dies by a signal has no exit code", async () => {
  const result = await run({ file: "/bin/sh", args: ["-c", "kill -TERM $$"] }, { signal });
  assert.deepEqual([result.exitCode, result.signal], [undefined, "SIGTERM"]);
});

test("a program that ends without reading its input is no error", async () => {
  const result = await run({ file: "/bin/true", stdin: "x".repeat(1 << 20) }, { signal });
  assert.equal(result.exitCode, 0);
});

test("what cannot be started is an error that names the file", async () => {
  await assert.rejects(run({ file: "/no/such/program" }, { signal }), failsWith("ERR_PROCESS_NOT_FOUND", /\/no\/such\/program not found$/));
  await assert.rejects(
    run({ file: "/bin/true", cwd: "/no/dir" }, { signal }),
    failsWith("ERR_PROCESS_NOT_FOUND", /working directory \/no\/dir/),
  );
  await assert.rejects(run({ file: import.meta.filename }, { signal }), failsWith("ERR_PROCESS_SPAWN", /EACCES/));
  await assert.rejects(
    async () => run({ file: "/bin/true", args: ["x".repeat(1 << 20)] }, { signal }),
    failsWith("ERR_PROCESS_SPAWN", /E2BIG/),
  );
});

test("a timeout kills the program and what it started, and waits for it", async () => {
  const script = "sleep 77 & echo $! >&2; wait";
  const started = Date.now();
  await assert.rejects(
    run({ file: "/bin/sh", args: ["-c", script], env }, { signal, timeoutMs: 100 }),
    failsWith("ERR_PROCESS_TIMEOUT", /100 ms/),
  );
  assert.ok(Date.now() - started < 5_000);
});

test("abort kills the whole group before the promise settles", async () => {
  const caller = new AbortController();
  using directory = mkdtempDisposableSync(join(tmpdir(), "aurae-process-"));
  const file = join(directory.path, "pids");
  const script = `sleep 78 & echo $! $$ >${file}; wait`;
  const running = run({ file: "/bin/sh", args: ["-c", script], env }, { signal: caller.signal });
  let pids: readonly number[] = [];
  while (pids.length < 2) {
    await sleep(5);
    pids = readPids(file);
  }
  const identities = pids.map((pid) => ({ pid, startTime: readStartTime(pid) ?? 0 }));
  assert.deepEqual(identities.map(isAlive), [true, true]);
  caller.abort(new Error("enough"));
  await assert.rejects(running, failsWith("ERR_PROCESS_ABORTED", /cancelled/));
  assert.equal(identities.some(isAlive), false);
  await assert.rejects(run({ file: "/bin/true" }, { signal: caller.signal }), failsWith("ERR_PROCESS_ABORTED", /cancelled/));
});

test("output without bound is an error, and is not kept", async () => {
  const flood = run({ file: "/bin/sh", args: ["-c", "yes"], env }, { signal, maxOutputBytes: 1_000 });
  await assert.rejects(flood, failsWith("ERR_PROCESS_OUTPUT", /1000 bytes/));
});

test("a grandchild that keeps the pipes open does not keep the call", async () => {
  const result = await run({ file: "/bin/sh", args: ["-c", "sleep 5 & echo done"], env }, { signal });
  assert.equal(result.stdout, "done\n");
});

test("a signal outlives many calls without keeping their listeners", async () => {
  const caller = new AbortController();
  let warning: Error | undefined;
  const onWarning = (seen: Error): void => {
    warning = seen;
  };
  process.on("warning", onWarning);
  for (let call = 0; call < 20; call++) await run({ file: "/bin/true" }, { signal: caller.signal });
  await sleep(0);
  process.off("warning", onWarning);
  assert.equal(warning, undefined);
});

function readPids(file: string): readonly number[] {
  try {
    return readFileSync(file, "utf8").trim().split(" ").map(Number);
  } catch {
    return [];
  }
}
