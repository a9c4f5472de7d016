import assert from "node:assert/strict";
import { test } from "node:test";

import { withMountsBelow } from "./mount-sources.ts";

test("a path that holds another mount is told from one that holds none, and from one whose name merely goes on", async () => {
  assert.deepEqual(await withMountsBelow(["/", "/proc/self/task", "/pro"]), new Set(["/"]));
  assert.deepEqual(await withMountsBelow([]), new Set());
});
