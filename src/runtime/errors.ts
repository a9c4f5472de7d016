import { CodedError } from "../lib/coded-error.ts";

export type RecordNoun = "pod sandbox" | "container" | "image";

/** What the runtime refuses or fails with. The message names the thing and the remedy. */
export type RuntimeFact =
  | { readonly code: "ERR_NOT_FOUND"; readonly noun: RecordNoun; readonly id: string }
  | { readonly code: "ERR_AMBIGUOUS_ID"; readonly noun: RecordNoun; readonly id: string }
  | { readonly code: "ERR_NAME_IN_USE"; readonly name: string; readonly id: string }
  | { readonly code: "ERR_WRONG_STATE"; readonly noun: RecordNoun; readonly id: string; readonly phase: string }
  | { readonly code: "ERR_INVALID"; readonly field: string }
  /** An image cannot be a container's volume. `field` is its path in CreateContainerRequest. */
  | { readonly code: "ERR_IMAGE_VOLUME"; readonly field: string }
  | { readonly code: "ERR_PLACEMENT"; readonly reason: string }
  | { readonly code: "ERR_TOO_MANY_STREAMS" }
  | { readonly code: "ERR_TIMEOUT"; readonly what: string }
  /** A microVM is larger in what the request asks for only when it is made anew. */
  | { readonly code: "ERR_CANNOT_GROW"; readonly field: string }
  | { readonly code: "ERR_VM_FAILED" }
  | { readonly code: "ERR_NOT_BUILT"; readonly what: string }
  | { readonly code: "ERR_EVENTS_DROPPED" }
  | { readonly code: "ERR_SHUTTING_DOWN" };

export class RuntimeError extends CodedError<RuntimeFact> {}

export function notFound(noun: RecordNoun, id: string): RuntimeError {
  return new RuntimeError({ code: "ERR_NOT_FOUND", noun, id }, `${noun} '${id}' not found`);
}

export function wrongState(noun: RecordNoun, id: string, phase: string, remedy: string): RuntimeError {
  return new RuntimeError({ code: "ERR_WRONG_STATE", noun, id, phase }, `${noun} ${id} is ${phase}: ${remedy}`);
}

export function invalid(field: string, problem: string): RuntimeError {
  return new RuntimeError({ code: "ERR_INVALID", field }, `${field}: ${problem}`);
}
