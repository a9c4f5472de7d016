import assert from "node:assert/strict";
import { test } from "node:test";

import { isLoopback } from "./loopback.ts";

test("only the machine's own addresses are loopback", () => {
  for (const address of ["127.0.0.1", "127.255.1.2", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"]) assert.ok(isLoopback(address), address);
  for (const address of ["0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "fe80::1", "::ffff:10.0.0.1", "localhost", ""])
    assert.ok(!isLoopback(address), address);
});
