import assert from "node:assert/strict";
import { test } from "node:test";
import { formatDuration, formatSize, parseDurationMs, parseSizeBytes } from "./units.ts";

test("durations", () => {
  for (const [text, durationMs] of [
    ["300ms", 300],
    ["5m", 300_000],
    ["1h30m", 5_400_000],
    ["0s", 0],
  ] as const) {
    assert.equal(parseDurationMs(text), durationMs);
    assert.equal(formatDuration(durationMs), text);
  }
  for (const text of ["", "5", "m", "5 m", "-5m", "1.5h", "5d", "99999999999999999h"]) assert.equal(parseDurationMs(text), undefined, text);
});

test("sizes", () => {
  for (const [text, sizeBytes] of [
    ["4097B", 4097],
    ["64KiB", 65_536],
    ["512MiB", 536_870_912],
    ["1536MiB", 1_610_612_736],
    ["2GiB", 2_147_483_648],
  ] as const) {
    assert.equal(parseSizeBytes(text), sizeBytes);
    assert.equal(formatSize(sizeBytes), text);
  }
  for (const text of ["", "512", "512MB", "MiB", "1.5GiB", "-1B", "99999999TiB"]) assert.equal(parseSizeBytes(text), undefined, text);
});
