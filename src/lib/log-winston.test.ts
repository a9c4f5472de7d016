import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { CodedError } from "./coded-error.ts";
import type { Log } from "./log.ts";
import { createLog, type LogFormat, type LogLevel } from "./log-winston.ts";

class DiskError extends CodedError<{ readonly code: "ERR_DISK"; readonly disk: string }> {}

async function written(level: LogLevel, format: LogFormat, use: (log: Log) => void): Promise<string> {
  const stream = new PassThrough();
  const log = createLog({ level, format, stream });
  use(log);
  await log[Symbol.asyncDispose]();
  stream.end();
  return await text(stream);
}

const failure = new DiskError({ code: "ERR_DISK", disk: "sda" }, "cannot write", { cause: new Error("no space left") });

test("one JSON object per line: children's fields, bigint, cause chain and code; no stack above debug", async () => {
  const output = await written("info", "json", (log) => {
    const child = log.child({ room: "store" }).child({ podId: "p1" });
    child.info("saved", { bytes: 12n, ok: true, level: "forged" });
    child.error("not saved", { bytes: 1 }, failure);
    child.debug("unseen");
  });
  const [saved, failed, none] = output.split("\n");
  const { time, ...facts } = JSON.parse(saved ?? "") as Record<string, unknown>;
  assert.ok(!Number.isNaN(Date.parse(String(time))));
  assert.deepEqual(facts, { level: "info", message: "saved", room: "store", podId: "p1", bytes: "12", ok: true });
  const error = JSON.parse(failed ?? "") as Record<string, unknown>;
  assert.equal(error["error"], "cannot write: no space left");
  assert.equal(error["code"], "ERR_DISK");
  assert.equal("stack" in error, false);
  assert.equal(none, "");
});

test("at debug the stack is there; repeated messages, cycles and aggregates are readable", async () => {
  const cycle = new Error("outer");
  cycle.cause = new Error("inner", { cause: cycle });
  const output = await written("debug", "json", (log) => {
    log.warn("one", {}, cycle);
    log.warn("two", {}, new AggregateError([new Error("a"), new Error("b", { cause: "c" })], "both"));
    log.warn("three", {}, new Error("open: no such file", { cause: new Error("no such file") }));
    log.warn("four", {}, "a string");
  });
  const lines = output.split("\n", 4).map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.deepEqual(
    lines.map((line) => line["error"]),
    ["outer: inner", "both (a; b: c)", "open: no such file", "a string"],
  );
  assert.match(String(lines[0]?.["stack"]), /log-winston\.test\.ts/);
});

test("the console format quotes what needs it", async () => {
  const output = await written("info", "console", (log) => log.warn("lost", { path: "/a b", none: undefined, count: 3 }, failure));
  assert.match(output, /^\S+Z warn {2}lost path="\/a b" count=3 code=ERR_DISK error="cannot write: no space left"\n$/);
});
