import { VmServiceService, VmState, type VmStatusResponse } from "../../api/gen/aurae/supervisor/v0/vm.ts";
import { messageOf } from "../lib/coded-error.ts";
import { RuntimeError } from "./errors.ts";
import type { Wait } from "./realm.ts";
import type { Pod } from "./runtime.ts";

/** Lines of the console that are worth a place in an error. */
const TAIL_LINES = 5;
const TAIL_MAX_CHARACTERS = 600;

export function vmStatus(pod: Pod, wait: Wait): Promise<VmStatusResponse> {
  return pod.agent.call(VmServiceService.vmStatus, {}, wait);
}

interface VmFailure {
  readonly cause: unknown;
  /** The machine was to go on from a template, which nobody uses any more. */
  readonly restored: boolean;
}

/** What to tell of a guest that did not come up: how QEMU ended, and the last it said. */
export async function explainVm(pod: Pod, { cause, restored }: VmFailure, wait: Wait): Promise<RuntimeError> {
  const told = await vmStatus(pod, wait).then(vmEnd, (error: unknown) => messageOf(error));
  const what = restored ? "did not go on from its template, which is removed (try again: it boots then)" : "did not start";
  return new RuntimeError({ code: "ERR_VM_FAILED" }, `the pod's microVM ${what}: ${told}`, { cause });
}

/** One line for an operator. */
export function vmEnd(status: VmStatusResponse): string {
  const said = tail(status.vmmTail) || tail(status.consoleTail);
  const last = said === "" ? "" : `; last output: ${said}`;
  switch (status.state) {
    case VmState.VM_STATE_EXITED:
      if (status.oomKilled)
        return `QEMU was killed for want of memory: give the RuntimeClass an overhead, or the pod a larger limit${last}`;
      return `QEMU ended with ${status.exitCode}${last}`;
    case VmState.VM_STATE_RUNNING:
      return `the guest does not answer${last}`;
    default:
      return `QEMU was not started${last}`;
  }
}

/** A guest can print anything: only what is readable, and little of it. */
function tail(text: string): string {
  const lines = text
    .replaceAll(/\p{Cc}+/gu, "\n")
    .split("\n")
    .filter((line) => line.trim() !== "");
  return lines.slice(-TAIL_LINES).join(" | ").slice(-TAIL_MAX_CHARACTERS);
}
