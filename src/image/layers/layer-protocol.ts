import { ImageError, type ImageFact } from "../errors.ts";
import type { LayerJob, LayerResult } from "./layer-build.ts";

/** From the daemon's thread to the one that builds a layer. One job at a time. */
export type ToWorker =
  | { readonly type: "start"; readonly job: LayerJob }
  /** The buffer is handed over, not copied. */
  | { readonly type: "chunk"; readonly bytes: Uint8Array }
  | { readonly type: "end" }
  /** The rest will not come. */
  | { readonly type: "abort" };

export type FromWorker =
  /** So many bytes of chunks have been worked off. */
  | { readonly type: "credit"; readonly sizeBytes: number }
  | { readonly type: "done"; readonly result: LayerResult }
  | { readonly type: "failed"; readonly error: WireError };

/** An error as it crosses threads, which keep neither class nor facts. */
export interface WireError {
  readonly fact: ImageFact | undefined;
  readonly message: string;
  readonly stack: string;
}

export function toWire(error: unknown): WireError {
  const fact = error instanceof ImageError ? error.fact : undefined;
  return error instanceof Error ? { fact, message: error.message, stack: error.stack ?? "" } : { fact, message: String(error), stack: "" };
}

export function fromWire({ fact, message, stack }: WireError): Error {
  if (fact !== undefined) return new ImageError(fact, message);
  const error = new Error(message);
  error.stack = stack;
  return error;
}
