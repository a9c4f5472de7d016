import assert from "node:assert/strict";
import { Writable } from "node:stream";
import { describe, it } from "node:test";
import { setImmediate as turn } from "node:timers/promises";

import { WriteBatch } from "./write-batch.ts";

/** Keeps what each write brings, and takes the next when told. */
class Sink extends Writable {
  readonly writes: string[] = [];
  next: (() => void) | undefined;

  override _writev(chunks: readonly { readonly chunk: Buffer }[], done: () => void): void {
    this.writes.push(chunks.map(({ chunk }) => chunk.toString()).join(""));
    this.next = done;
  }
}

describe("write batch", () => {
  it("writes together what one turn of the event loop brings", async () => {
    const sink = new Sink();
    const batch = new WriteBatch(sink, 100);
    batch.add(Buffer.from("a"), Buffer.from("b"));
    batch.add(Buffer.from("c"));
    assert.deepEqual(sink.writes, []);
    await turn();
    assert.deepEqual(sink.writes, ["abc"]);
    sink.next?.();
    batch.add(Buffer.from("d"));
    await turn();
    assert.deepEqual(sink.writes, ["abc", "d"]);
  });

  it("is ready below the limit, else when the stream has drained or closed", async () => {
    const sink = new Sink({ highWaterMark: 2 });
    const batch = new WriteBatch(sink, 4);
    batch.add(Buffer.from("abc"));
    await batch.ready();
    batch.add(Buffer.from("d"));
    let ready = false;
    const waiting = Promise.all([batch.ready(), batch.ready()]).then(() => (ready = true));
    await turn();
    assert.equal(ready, false);
    sink.next?.();
    await waiting;

    batch.add(Buffer.from("more"));
    const closing = batch.ready();
    sink.destroy();
    await closing;
    await batch.ready();
  });

  it("loses nothing to an end in the same turn", async () => {
    const sink = new Sink();
    new WriteBatch(sink, 100).add(Buffer.from("last"));
    sink.end();
    await turn();
    assert.deepEqual(sink.writes, ["last"]);
  });
});
