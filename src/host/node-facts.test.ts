import assert from "node:assert/strict";
import { test } from "node:test";

import { fileSystemSupport, openFailure } from "./node-facts.ts";

test("file systems that every kernel has, and one that none has", async () => {
  assert.equal(await fileSystemSupport("proc"), "present");
  assert.equal(await fileSystemSupport("nosuchfs"), "missing");
});

test("why a device cannot be opened", async () => {
  assert.equal(await openFailure("/dev/null"), undefined);
  assert.equal(await openFailure("/dev/no-such-device"), "ENOENT");
  assert.equal(await openFailure("/proc"), "EISDIR");
});
