import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { mapLimit } from "./map-limit.ts";

suite("mapLimit", () => {
  test("keeps the order and never has more than so many under way", async () => {
    let running = 0;
    let most = 0;
    const doubled = await mapLimit([1, 2, 3, 4, 5, 6, 7], 3, async (number) => {
      most = Math.max(most, ++running);
      await delay(number % 2);
      running--;
      return number * 2;
    });
    assert.deepEqual([doubled, most], [[2, 4, 6, 8, 10, 12, 14], 3]);
    assert.deepEqual(await mapLimit([], 3, async () => 1), []);
  });

  test("one that waits holds one place alone", async () => {
    const last = Promise.withResolvers<void>();
    const results = await mapLimit([0, 1, 2], 2, async (number) => {
      if (number === 0) await last.promise;
      if (number === 2) last.resolve();
      return number;
    });
    assert.deepEqual(results, [0, 1, 2]);
  });

  test("the first failure is the answer, and nothing is begun after it", async () => {
    const begun: number[] = [];
    await assert.rejects(
      mapLimit([0, 1, 2, 3], 1, async (number) => {
        begun.push(number);
        if (number === 1) throw new Error("one");
      }),
      /^Error: one$/,
    );
    assert.deepEqual(begun, [0, 1]);
  });
});
