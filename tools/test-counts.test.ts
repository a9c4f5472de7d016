import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { countCargoLine, noCounts, sum, verdict } from "./test-counts.ts";

describe("counts", () => {
  it("adds up what cargo prints for each test binary", () => {
    const lines = [
      "running 3 tests",
      "test spec::rewrites_mounts ... ok",
      "test sys::needs_root ... ignored, needs root",
      "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
      "test src/lib.rs - pod (line 3) - compile ... ignored",
      "test result: FAILED. 1 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
    ];
    assert.deepEqual(lines.reduce(countCargoLine, noCounts), {
      passed: 3,
      failed: 4,
      skipped: 1,
      skips: ["sys::needs_root: needs root", "src/lib.rs: no reason given"],
    });
  });

  it("fails a suite that ran no test, also when some were skipped", () => {
    assert.deepEqual(verdict({ ...noCounts, skipped: 2 }), { ...noCounts, skipped: 2, failed: 1, ranNone: true });
    assert.deepEqual(verdict({ ...noCounts, passed: 1 }), { ...noCounts, passed: 1, ranNone: false });
  });

  it("sums", () => {
    const one = { passed: 1, failed: 2, skipped: 3, skips: ["a: b"] };
    assert.deepEqual(sum(one, one), { passed: 2, failed: 4, skipped: 6, skips: ["a: b", "a: b"] });
  });
});
