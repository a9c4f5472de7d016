import assert from "node:assert/strict";
import { test } from "node:test";
import { newId, resolvePrefix } from "./ids.ts";

test("an id is 64 hex characters and not the last one", () => {
  assert.match(newId(), /^[0-9a-f]{64}$/);
  assert.notEqual(newId(), newId());
});

test("prefixes", () => {
  const ids = ["abc1", "abd2", "ab", "f00"];
  for (const [prefix, match] of [
    ["f", { kind: "found", id: "f00" }],
    ["abc1", { kind: "found", id: "abc1" }],
    ["ab", { kind: "found", id: "ab" }],
    ["a", { kind: "ambiguous", ids: ["abc1", "abd2"] }],
    ["abc12", { kind: "none" }],
    ["", { kind: "none" }],
  ] as const) {
    assert.deepEqual(resolvePrefix(ids, prefix), match, `prefix '${prefix}'`);
  }
});
