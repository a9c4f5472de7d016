import assert from "node:assert/strict";
import { suite, test } from "node:test";

import { RuntimeError } from "./errors.ts";
import type { Guest } from "./guest.ts";
import { hostFacts } from "./oci/test-input.ts";
import { guestLimits } from "./update-pod.ts";

const guest: Guest = {
  kernelRelease: "6.12",
  memoryBytes: 512,
  guestReserveBytes: 112,
  vcpus: 2,
  uid: 1,
  namespaces: { network: "", ipc: "", uts: "", pid: "", user: "" },
  facts: hostFacts,
};

suite("the new size of a pod in a microVM", () => {
  test("is what of it is asked for, within the machine", () => {
    assert.deepEqual(guestLimits({}, guest), { memoryBytes: undefined, cpu: undefined });
    assert.deepEqual(guestLimits({ memoryLimitBytes: 400, cpuQuotaUs: 100_000, cpuPeriodUs: 50_000 }, guest), {
      memoryBytes: 400n,
      cpu: { quotaUs: 100_000n, periodUs: 50_000n },
    });
    assert.deepEqual(guestLimits({ memoryLimitBytes: -1, cpuQuotaUs: -1 }, guest), {
      memoryBytes: 0n,
      cpu: { quotaUs: 0n, periodUs: 100_000n },
    });
  });

  for (const [field, resources, problem] of [
    ["resources.memory_limit_in_bytes", { memoryLimitBytes: 401 }, /is 401 bytes, and the pod's microVM has 400 .*cannot grow.*aurae-flat/],
    ["resources.cpu_quota", { cpuQuotaUs: 250_000 }, /is 2\.5 CPUs, and the pod's microVM has 2; /],
  ] as const) {
    test(`beyond it is refused: ${field}`, () => {
      assert.throws(
        () => guestLimits(resources, guest),
        (error: unknown) =>
          error instanceof RuntimeError &&
          error.fact.code === "ERR_CANNOT_GROW" &&
          error.fact.field === field &&
          problem.test(error.message),
      );
    });
  }
});
