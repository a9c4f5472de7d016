import assert from "node:assert/strict";
import { test } from "node:test";
import { backoffMs, retry } from "./retry.ts";

const options = { signal: new AbortController().signal, attempts: 3, baseMs: 1, maxMs: 2, retryable: () => true };

test("the wait doubles up to its ceiling, half of it random", () => {
  const backoff = { baseMs: 100, maxMs: 1_000 };
  assert.deepEqual(
    [1, 2, 3, 4, 5, 500].map((attempt) => backoffMs(attempt, backoff, () => 0)),
    [50, 100, 200, 400, 500, 500],
  );
  assert.equal(
    backoffMs(1, backoff, () => 1),
    100,
  );
});

test("retries until success, and no more than the attempts", async () => {
  assert.equal(await retry(async (attempt) => (attempt < 3 ? Promise.reject(new Error("not yet")) : attempt), options), 3);
  let runs = 0;
  const failing = retry(() => Promise.reject(new Error(`failure ${++runs}`)), options);
  await assert.rejects(failing, /failure 3/);
});

test("an error that is not retryable, and an abort, end it", async () => {
  let runs = 0;
  const task = (): Promise<never> => Promise.reject(new Error(`failure ${++runs}`));
  await assert.rejects(retry(task, { ...options, retryable: () => false }), /failure 1/);
  await assert.rejects(retry(task, { ...options, signal: AbortSignal.abort("stop") }), (reason) => reason === "stop");
  assert.equal(runs, 1);
});
