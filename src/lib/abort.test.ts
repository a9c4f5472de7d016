import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { isTimeout, joinSignals, sleep, untilAborted, withDeadline } from "./abort.ts";

test("a joined signal takes the first parent's reason and leaves no listener", () => {
  const process = new AbortController();
  const call = new AbortController();
  {
    using scope = joinSignals(process.signal, call.signal);
    assert.equal(scope.signal.aborted, false);
    call.abort("client gone");
    assert.equal(scope.signal.reason, "client gone");
  }
  assert.equal(getEventListeners(process.signal, "abort").length, 0);
});

test("a parent that was aborted before counts", () => {
  using scope = joinSignals(AbortSignal.abort("late"), new AbortController().signal);
  assert.equal(scope.signal.reason, "late");
});

test("a scope aborts when its block ends", () => {
  let signal: AbortSignal | undefined;
  {
    using scope = joinSignals(new AbortController().signal);
    signal = scope.signal;
  }
  assert.equal(signal.aborted, true);
});

test("a deadline aborts with a TimeoutError, its parent with its own reason", async () => {
  const parent = new AbortController();
  using scope = withDeadline(5, parent.signal);
  await assert.rejects(sleep(60_000, scope.signal), (reason) => isTimeout(reason));
  using other = withDeadline(60_000, parent.signal);
  parent.abort("stop");
  await assert.rejects(sleep(60_000, other.signal), (reason) => reason === "stop" && !isTimeout(reason));
  assert.equal(getEventListeners(parent.signal, "abort").length, 0);
});

test("untilAborted gives up waiting, keeps results, and swallows the late failure", async () => {
  const controller = new AbortController();
  assert.equal(await untilAborted(Promise.resolve(7), controller.signal), 7);
  const late = Promise.withResolvers<never>();
  const waiting = untilAborted(late.promise, controller.signal);
  controller.abort("enough");
  await assert.rejects(waiting, (reason) => reason === "enough");
  late.reject(new Error("too late"));
  await assert.rejects(untilAborted(Promise.reject(new Error("unseen")), controller.signal), (reason) => reason === "enough");
  await new Promise(setImmediate);
  assert.equal(getEventListeners(controller.signal, "abort").length, 0);
});
