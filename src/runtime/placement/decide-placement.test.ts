import assert from "node:assert/strict";
import { suite, test } from "node:test";

import { untilAborted } from "../../lib/abort.ts";
import { RuntimeError } from "../errors.ts";
import { fakeRuntime, fixed } from "../fake.ts";
import { sandbox } from "../oci/test-input.ts";
import type { VirtualizationReport } from "../ports.ts";
import { decidePlacement } from "./decide-placement.ts";

const live = { signal: new AbortController().signal };

/** Unknown until it is told. */
function pending() {
  const { promise, resolve } = Promise.withResolvers<VirtualizationReport>();
  let now: VirtualizationReport = { state: "unknown" };
  return {
    virtualization: { report: () => now, settled: () => promise, lookAgain: () => promise },
    settle(report: VirtualizationReport) {
      now = report;
      resolve(report);
    },
  };
}

suite("the decision where a pod runs", () => {
  test("waits for the first verdict, and is counted once", async () => {
    const { virtualization, settle } = pending();
    const runtime = fakeRuntime("/none", { virtualization });
    const decision = decidePlacement(runtime, { config: sandbox, handler: "" }, live);
    assert.equal(runtime.placed.length, 0);
    settle({ state: "unavailable", message: "no guest boots", consoleTail: "" });
    assert.equal((await decision).reason, "NoVirtualization");
    assert.deepEqual(runtime.placed, [{ mode: "flat", reason: "NoVirtualization", handler: "" }]);
  });

  test("answers that it is still unknown, and never flat, when the verdict does not come", async (context) => {
    context.mock.timers.enable({ apis: ["setTimeout"] });
    const { virtualization } = pending();
    const settled = ({ signal }: { readonly signal: AbortSignal }) => untilAborted(new Promise<never>(() => {}), signal);
    const runtime = fakeRuntime("/none", { virtualization: { ...virtualization, settled } });
    const decision = assert.rejects(decidePlacement(runtime, { config: sandbox, handler: "" }, live), (error: unknown) => {
      assert.ok(error instanceof RuntimeError && error.fact.code === "ERR_PLACEMENT");
      assert.equal(error.fact.reason, "VirtualizationUnknown");
      return true;
    });
    context.mock.timers.tick(30_000);
    await decision;
    assert.deepEqual(runtime.placed, [{ mode: "refused", reason: "VirtualizationUnknown", handler: "" }]);
  });

  test("looks at the node again before it refuses for what the node lacks, and only then", async () => {
    const { virtualization, settle } = pending();
    settle({ state: "unavailable", message: "no QEMU", consoleTail: "" });
    let looks = 0;
    const lookAgain = async () => {
      looks++;
      settle({ state: "available", accelerator: "tcg", message: "" });
      return virtualization.report();
    };
    const runtime = fakeRuntime("/none", { virtualization: { ...virtualization, lookAgain } });
    assert.equal((await decidePlacement(runtime, { config: sandbox, handler: "" }, live)).reason, "NoVirtualization");
    assert.equal(looks, 0);
    for (let round = 0; round < 2; round++)
      assert.equal((await decidePlacement(runtime, { config: sandbox, handler: "aurae-vm" }, live)).mode, "microvm");
    assert.equal(looks, 1);
  });

  test("does not wait for what it does not need", async () => {
    const { virtualization } = pending();
    const runtime = fakeRuntime("/none", { virtualization });
    assert.equal((await decidePlacement(runtime, { config: sandbox, handler: "aurae-flat" }, live)).reason, "HandlerFlat");
  });

  test("knows the refusals of the pod's uid", async () => {
    const runtime = fakeRuntime("/none");
    runtime.refusals.remember(sandbox.metadata.uid, { reason: "HostDevice", field: "config.devices[0].host_path", message: "m: why" });
    const { mode, reason, message } = await decidePlacement(runtime, { config: sandbox, handler: "" }, live);
    assert.deepEqual([mode, reason], ["flat", "LateRefusal"]);
    assert.match(message, /m: why/);
    const other = { ...sandbox, metadata: { ...sandbox.metadata, uid: "another" } };
    assert.equal((await decidePlacement(runtime, { config: other, handler: "" }, live)).mode, "microvm");
  });

  test("makes no time series of a client's text", async () => {
    const runtime = fakeRuntime("/none", { virtualization: fixed({ state: "unknown" }) });
    await assert.rejects(decidePlacement(runtime, { config: sandbox, handler: "random-1" }, live), /random-1/);
    assert.deepEqual(runtime.placed, [{ mode: "refused", reason: "UnknownHandler", handler: "unknown" }]);
  });
});
