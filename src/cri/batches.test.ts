import assert from "node:assert/strict";
import { suite, test } from "node:test";

import { PodSandbox, StreamPodSandboxesResponse } from "../../api/gen/cri/v1/api.ts";
import { inBatches } from "./batches.ts";

function pod(id: string, labelBytes = 0): PodSandbox {
  return PodSandbox.fromPartial({ id, labels: labelBytes === 0 ? {} : { label: "x".repeat(labelBytes) } });
}

suite("the messages of a streaming list", () => {
  test("an empty list is no message", () => {
    assert.deepEqual([...inBatches([], PodSandbox)], []);
  });

  test("each item is there once, in order, in messages below 1 MiB that are filled", () => {
    const pods = Array.from({ length: 3000 }, (_, index) => pod(`pod-${index}`, 1000));
    const messages = [...inBatches(pods, PodSandbox)];
    assert.deepEqual(messages.flat(), pods);
    const sizes = messages.map((podSandboxes) => StreamPodSandboxesResponse.encode({ podSandboxes }).finish().byteLength);
    assert.equal(messages.length, 3);
    for (const size of sizes) assert.ok(size < 1024 * 1024, `${size}`);
    assert.ok((sizes[0] ?? 0) > 1000 * 1024, `${sizes[0]}`);
  });

  test("an item above the limit goes alone", () => {
    const pods = [pod("a"), pod("b", 200), pod("c"), pod("d")];
    assert.deepEqual([...inBatches(pods, PodSandbox, 100)], [[pods[0]], [pods[1]], [pods[2], pods[3]]]);
  });
});
