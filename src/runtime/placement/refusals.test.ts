import assert from "node:assert/strict";
import { test } from "node:test";

import { Refusals } from "./refusals.ts";

test("the pods refused last are remembered", () => {
  const refusals = new Refusals({ maxPods: 2 });
  const refusal = { reason: "HostDevice", field: "f", message: "m" } as const;
  for (const uid of ["a", "b", "a", "c"]) refusals.remember(uid, refusal);
  assert.deepEqual(
    ["a", "b", "c"].map((uid) => refusals.find(uid) !== undefined),
    [true, false, true],
  );
});
