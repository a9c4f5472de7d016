import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { describe, it } from "node:test";

import { readAhead } from "./read-ahead.ts";

describe("read ahead", () => {
  it("gives every chunk in order, to the end", async () => {
    const stream = new PassThrough();
    for (const text of ["a", "b", "c"]) stream.write(text);
    stream.end();
    const texts: string[] = [];
    for await (const chunk of readAhead(stream, 1)) texts.push(chunk.toString());
    assert.equal(texts.join(""), "abc");
  });

  it("stops reading once the limit waits, and goes on", async () => {
    const stream = new PassThrough({ highWaterMark: 1 });
    const reader = readAhead(stream, 2);
    const first = reader.next();
    const writes = ["aa", "bb", "cc", "dd"].map((text) => new Promise<void>((resolve) => stream.write(text, () => resolve())));
    assert.equal((await first).value?.toString(), "aa");
    await writes[0];
    assert.ok(stream.writableLength > 0);
    for (const text of ["bb", "cc", "dd"]) assert.equal((await reader.next()).value?.toString(), text);
  });

  it("throws what broke the stream, after what came before", async () => {
    const stream = new PassThrough();
    const reader = readAhead(stream, 10);
    const first = reader.next();
    stream.write("so far");
    assert.equal((await first).value?.toString(), "so far");
    stream.destroy(new Error("broke off"));
    await assert.rejects(reader.next(), /broke off/);
    await assert.rejects(readAhead(stream, 10).next(), /broke off/);
  });

  it("ends with a stream that is destroyed, and leaves one open whose reader leaves", async () => {
    const destroyed = new PassThrough();
    const reading = readAhead(destroyed, 10).next();
    destroyed.destroy();
    assert.equal((await reading).done, true);

    const left = new PassThrough();
    left.write("one");
    for await (const _ of readAhead(left, 10)) break;
    assert.ok(!left.destroyed && left.isPaused());
    assert.equal(left.listenerCount("data"), 0);
  });
});
