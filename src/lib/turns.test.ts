import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as tick } from "node:timers/promises";

import { Turns } from "./turns.ts";

const { signal } = new AbortController();

describe("turns", () => {
  it("go to so many at a time, in order of arrival", async () => {
    const turns = new Turns({ limit: 2, longestMs: 60_000 });
    const order: number[] = [];
    const work = async (index: number) => {
      using _ = await turns.take(signal);
      order.push(index);
      await tick();
    };
    using first = await turns.take(signal);
    using second = await turns.take(signal);
    const rest = [1, 2, 3].map(work);
    await tick();
    assert.deepEqual(order, []);
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    await tick();
    assert.deepEqual(order, [1], "one turn, however often it is given back");
    second[Symbol.dispose]();
    await Promise.all(rest);
    assert.deepEqual(order, [1, 2, 3]);
  });

  it("are not taken by who no longer waits", async () => {
    const turns = new Turns({ limit: 1, longestMs: 60_000 });
    const held = await turns.take(signal);
    const impatient = new AbortController();
    const refused = turns.take(impatient.signal);
    impatient.abort(new Error("too long"));
    await assert.rejects(refused, /too long/);
    held[Symbol.dispose]();
    using _ = await turns.take(signal);
  });

  it("come back when somebody gives up in the moment of getting one", async () => {
    const turns = new Turns({ limit: 1, longestMs: 60_000 });
    const held = await turns.take(signal);
    const impatient = new AbortController();
    const refused = turns.take(impatient.signal);
    held[Symbol.dispose]();
    impatient.abort(new Error("too long"));
    await refused.then(
      (turn) => turn[Symbol.dispose](),
      (error: unknown) => assert.match(String(error), /too long/),
    );
    using _ = await turns.take(signal);
  });

  it("end by themselves for who is stuck", async () => {
    const turns = new Turns({ limit: 1, longestMs: 20 });
    using _stuck = await turns.take(signal);
    using _ = await turns.take(signal);
  });
});
