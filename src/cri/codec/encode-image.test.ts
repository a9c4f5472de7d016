import assert from "node:assert/strict";
import { test } from "node:test";

import { chainId } from "./encode-image.ts";

test("the name of a chain of layers is the lowest one's digest, then digests of pairs", () => {
  const [lowest, middle, highest] = ["a", "b", "c"].map((digit) => `sha256:${digit.repeat(64)}`) as [string, string, string];
  assert.equal(chainId([]), "");
  assert.equal(chainId([lowest]), lowest);
  // printf '%s %s' sha256:aaa… sha256:bbb… | sha256sum
  const both = "sha256:ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c";
  assert.equal(chainId([lowest, middle]), both);
  assert.equal(chainId([lowest, middle, highest]), chainId([both, highest]));
});
