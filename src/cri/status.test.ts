import assert from "node:assert/strict";
import { suite, test } from "node:test";

import { status } from "@grpc/grpc-js";

import { AgentError } from "../agent/errors.ts";
import { ImageError } from "../image/errors.ts";
import { notFound, RuntimeError, wrongState } from "../runtime/errors.ts";
import { InvalidArgumentError } from "./errors.ts";
import { statusOf } from "./status.ts";

const live = new AbortController().signal;

suite("the status of an error", () => {
  const cases: readonly (readonly [string, unknown, status, RegExp])[] = [
    ["a bad field", new InvalidArgumentError("config.metadata", "must be set"), status.INVALID_ARGUMENT, /^config\.metadata: must be set$/],
    ["an unknown id", notFound("container", "abc"), status.NOT_FOUND, /container 'abc' not found/],
    [
      "a wrong state",
      wrongState("container", "abc", "exited", "start another"),
      status.FAILED_PRECONDITION,
      /abc is exited: start another/,
    ],
    ["an unknown handler", new RuntimeError({ code: "ERR_PLACEMENT", reason: "UnknownHandler" }, "m"), status.INVALID_ARGUMENT, /m/],
    [
      "no virtualization",
      new RuntimeError({ code: "ERR_PLACEMENT", reason: "RequiresVirtualization" }, "m"),
      status.FAILED_PRECONDITION,
      /m/,
    ],
    [
      "a verdict that is still out",
      new RuntimeError({ code: "ERR_PLACEMENT", reason: "VirtualizationUnknown" }, "try again"),
      status.UNAVAILABLE,
      /try again/,
    ],
    ["what is not built", new RuntimeError({ code: "ERR_NOT_BUILT", what: "Exec" }, "Exec"), status.UNIMPLEMENTED, /Exec/],
    [
      "auraed's own code",
      new AgentError({ code: "ERR_AGENT_REFUSED", method: "m", status: status.FAILED_PRECONDITION }, "not running"),
      status.FAILED_PRECONDITION,
      /not running/,
    ],
    [
      "an unavailable registry, by the prefix the kubelet knows",
      new ImageError({ code: "ERR_REGISTRY_UNAVAILABLE", registry: "r", status: 503 }, "r answers 503"),
      status.UNKNOWN,
      /^RegistryUnavailable: r answers 503$/,
    ],
    [
      "an image that cannot be a volume, by the prefix the kubelet knows",
      new RuntimeError({ code: "ERR_IMAGE_VOLUME", field: "config.mounts[0].image" }, "config.mounts[0].image: gone"),
      status.UNKNOWN,
      /^ImageVolumeMountFailed: config\.mounts\[0\]\.image: gone$/,
    ],
    ["anything else, without its message", new Error("secret path"), status.INTERNAL, /^internal error(?!.*secret)/],
  ];
  for (const [id, error, code, details] of cases) {
    test(id, () => {
      const answer = statusOf(error, live);
      assert.equal(answer.code, code);
      assert.match(answer.details, details);
    });
  }

  test("of a call whose client has left is Cancelled, and of one whose deadline passed DeadlineExceeded", () => {
    assert.equal(statusOf(new Error("x"), AbortSignal.abort(new DOMException("gone", "AbortError"))).code, status.CANCELLED);
    assert.equal(statusOf(new Error("x"), AbortSignal.abort(new DOMException("late", "TimeoutError"))).code, status.DEADLINE_EXCEEDED);
  });
});
