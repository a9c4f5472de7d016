import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { fakePodRecord } from "./fake.ts";
import { podFingerprint } from "./identity.ts";

describe("a pod's fingerprint", () => {
  const { config } = fakePodRecord();
  const annotated = (annotations: Readonly<Record<string, string>>) =>
    podFingerprint({ config: { ...config, annotations: { ...config.annotations, ...annotations } }, handler: "" });

  it("is the same for a kubelet that was started anew", () => {
    assert.equal(
      annotated({ "kubernetes.io/config.seen": "2026-01-01T00:00:00Z" }),
      annotated({ "kubernetes.io/config.seen": "2026-01-02T00:00:00Z" }),
    );
  });

  it("is another for another pod", () => {
    assert.notEqual(annotated({ "kubernetes.io/config.hash": "1" }), annotated({ "kubernetes.io/config.hash": "2" }));
    assert.notEqual(podFingerprint({ config, handler: "" }), podFingerprint({ config, handler: "aurae-vm" }));
  });
});
