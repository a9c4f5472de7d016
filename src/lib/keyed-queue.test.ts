import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { KeyedQueue, type QueueError } from "./keyed-queue.ts";

const never = new AbortController().signal;

test("tasks of one key run one at a time in order; another key does not wait", async () => {
  const queue = new KeyedQueue({ maxWaiting: 10 });
  const steps: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = queue.run("a", never, async () => {
    await gate.promise;
    steps.push("a1");
  });
  const second = queue.run("a", never, async () => steps.push("a2"));
  await queue.run("b", never, async () => steps.push("b1"));
  gate.resolve();
  await Promise.all([first, second]);
  assert.deepEqual(steps, ["b1", "a1", "a2"]);
  assert.equal(await queue.run("a", never, async () => "again"), "again");
});

test("a failed task does not stop the line", async () => {
  const queue = new KeyedQueue({ maxWaiting: 10 });
  const failed = queue.run("a", never, () => Promise.reject(new Error("broken")));
  const next = queue.run("a", never, async () => "fine");
  await assert.rejects(failed, /broken/);
  assert.equal(await next, "fine");
});

test("an aborted waiter leaves at once and its task never starts", async () => {
  const queue = new KeyedQueue({ maxWaiting: 10 });
  const gate = Promise.withResolvers<void>();
  const controller = new AbortController();
  const first = queue.run("a", never, () => gate.promise);
  const left = queue.run("a", controller.signal, () => assert.fail("started"));
  const last = queue.run("a", never, async () => "last");
  controller.abort("gone");
  await assert.rejects(left, (reason) => reason === "gone");
  gate.resolve();
  await first;
  assert.equal(await last, "last");
  assert.equal(getEventListeners(controller.signal, "abort").length, 0);
});

test("the line is bounded", async () => {
  const queue = new KeyedQueue({ maxWaiting: 1 });
  const gate = Promise.withResolvers<void>();
  const running = queue.run("a", never, () => gate.promise);
  const waiting = queue.run("a", never, async () => {});
  await assert.rejects(
    queue.run("a", never, async () => {}),
    (error: QueueError) => error.fact.code === "ERR_QUEUE_FULL" && error.fact.waiting === 1,
  );
  gate.resolve();
  await Promise.all([running, waiting]);
});

test("closing refuses those that wait and come, and waits for the one under way", async () => {
  const queue = new KeyedQueue({ maxWaiting: 10 });
  const gate = Promise.withResolvers<void>();
  let done = false;
  const running = queue.run("a", never, async () => {
    await gate.promise;
    done = true;
  });
  const waiting = assert.rejects(
    queue.run("a", never, async () => {}),
    /shutting down/,
  );
  const closed = queue[Symbol.asyncDispose]();
  await waiting;
  await assert.rejects(
    queue.run("b", never, async () => {}),
    (error: QueueError) => error.fact.code === "ERR_QUEUE_CLOSED",
  );
  gate.resolve();
  await closed;
  assert.equal(done, true);
  await running;
});
