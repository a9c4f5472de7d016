import { CodedError } from "../lib/coded-error.ts";
import type { GuestFlaw } from "./guest-files.ts";

/** What can go wrong with one microVM. Messages name the file, the field or the command, and the remedy where there is one. */
export type VmFact =
  /** The guest's files cannot be booted. Never empty. */
  | { readonly code: "ERR_GUEST_FILES"; readonly directory: string; readonly flaws: readonly GuestFlaw[] }
  | { readonly code: "ERR_QEMU_MISSING"; readonly path: string }
  | { readonly code: "ERR_QEMU_VERSION"; readonly path: string; readonly version: string }
  /** The node cannot virtualize, or does not know yet. */
  | { readonly code: "ERR_VM_UNAVAILABLE"; readonly state: "unknown" | "unavailable" }
  /** `field` is the one to change; a guest, or a container in it, needs `leastBytes`. */
  | { readonly code: "ERR_VM_TOO_SMALL"; readonly field: string; readonly leastBytes: number }
  | { readonly code: "ERR_VM_TOO_LARGE"; readonly field: string; readonly mostBytes: number }
  | { readonly code: "ERR_LAYER_INVALID"; readonly name: string; readonly problem: string }
  /** All slots for layers are taken: they cannot be given back while the VM runs. */
  | { readonly code: "ERR_LAYER_SLOTS"; readonly slots: number }
  /** The address space kept for layers is used up. */
  | { readonly code: "ERR_LAYER_SPACE"; readonly spaceBytes: number; readonly usedBytes: number }
  /** No machine could be saved, or none goes on from what was saved. */
  | { readonly code: "ERR_VM_TEMPLATE"; readonly problem: string }
  /** No QMP socket, or nobody behind it: the VM is not running. */
  | { readonly code: "ERR_QMP_CONNECT"; readonly path: string; readonly errno: string }
  /** QEMU refused a command. `class` and `desc` are its words. */
  | { readonly code: "ERR_QMP_COMMAND"; readonly command: string; readonly class: string; readonly desc: string }
  /** What came is not QMP, or too much of it. */
  | { readonly code: "ERR_QMP_PROTOCOL"; readonly problem: string }
  /** The connection ended: QEMU did, or we closed it. */
  | { readonly code: "ERR_QMP_CLOSED" };

export class VmError extends CodedError<VmFact> {}

export function protocolError(problem: string): VmError {
  return new VmError({ code: "ERR_QMP_PROTOCOL", problem }, `QMP: ${problem}`);
}

export function closedError(cause?: unknown): VmError {
  return new VmError({ code: "ERR_QMP_CLOSED" }, "QMP: the connection is closed: QEMU has ended, or is ending", { cause });
}

export function templateError(problem: string): VmError {
  return new VmError({ code: "ERR_VM_TEMPLATE", problem }, problem);
}

export function layerError(name: string, problem: string): VmError {
  return new VmError({ code: "ERR_LAYER_INVALID", name, problem }, `layer ${JSON.stringify(name.slice(0, 80))}: ${problem}`);
}
