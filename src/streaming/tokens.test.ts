import assert from "node:assert/strict";
import { it } from "node:test";

import { RuntimeError } from "../runtime/errors.ts";
import type { StreamRequest } from "../runtime/stream-request.ts";
import { Tokens } from "./tokens.ts";

const request: StreamRequest = { kind: "portforward", podId: "a", ports: [] };

it("a token works once and for a minute", () => {
  let nowMs = 0;
  const tokens = new Tokens(() => nowMs);
  const token = tokens.issue(request);
  assert.match(token, /^[\w-]{8}$/);
  assert.equal(tokens.redeem(token), request);
  assert.equal(tokens.redeem(token), undefined);
  const late = tokens.issue(request);
  nowMs = 60_000;
  assert.equal(tokens.redeem(late), undefined);
});

it("a thousand may wait; the room comes back", () => {
  let nowMs = 0;
  const tokens = new Tokens(() => nowMs);
  for (let index = 0; index < 1000; index++) tokens.issue(request);
  assert.throws(() => tokens.issue(request), RuntimeError);
  nowMs = 60_000;
  tokens.issue(request);
});
