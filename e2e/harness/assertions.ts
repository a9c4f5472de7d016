import assert from "node:assert/strict";

import type { ServiceError } from "@grpc/grpc-js";
import { status } from "@grpc/grpc-js";

import type { RuntimeKind } from "./settings.ts";

export interface ExpectedError {
  readonly code: status;
  /** What an operator must find in the message: the field, the id, the remedy. */
  readonly message: RegExp;
}

/** The call must be refused. How well is asked of our daemon only: the reference often answers Unknown. */
export async function assertRefused(kind: RuntimeKind, call: Promise<unknown>, expected: ExpectedError): Promise<void> {
  const error = await call.then(
    () => assert.fail("the call was accepted"),
    (reason: unknown) => reason as ServiceError,
  );
  assert.equal(typeof error.code, "number", `not a gRPC error: ${error.message}`);
  if (kind === "containerd") return;
  assert.equal(status[error.code], status[expected.code], error.message);
  assert.match(error.details, expected.message);
}
