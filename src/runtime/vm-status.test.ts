import assert from "node:assert/strict";
import { test } from "node:test";

import { VmState, VmStatusResponse } from "../../api/gen/aurae/supervisor/v0/vm.ts";
import type { Pod } from "./runtime.ts";
import { explainVm } from "./vm-status.ts";

const wait = { signal: new AbortController().signal };
const cause = new Error("QMP: the connection is closed");

/** What its auraed answers. */
function pod(status: Partial<VmStatusResponse>): Pod {
  const call = async () => VmStatusResponse.fromPartial(status);
  return { agent: { call } } as unknown as Pod;
}

test("a machine that did not boot: how QEMU ended, and its last words", async () => {
  const ended = pod({ state: VmState.VM_STATE_EXITED, exitCode: 1, vmmTail: "qemu: could not load kernel\n" });
  const { fact, message } = await explainVm(ended, { cause, restored: false }, wait);
  assert.equal(fact.code, "ERR_VM_FAILED");
  assert.equal(message, "the pod's microVM did not start: QEMU ended with 1; last output: qemu: could not load kernel");
});

test("a machine that did not go on from its template: what to do comes first", async () => {
  const ended = pod({ state: VmState.VM_STATE_EXITED, exitCode: 1, vmmTail: "qemu: Not a migration stream\n" });
  const error = await explainVm(ended, { cause, restored: true }, wait);
  assert.match(
    error.message,
    /did not go on from its template, which is removed \(try again: it boots then\): QEMU ended with 1; .*Not a mig/,
  );
  assert.equal(error.cause, cause);
});
