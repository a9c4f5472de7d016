import { CodedError } from "../lib/coded-error.ts";

/** What can go wrong with durable state. Every `path` is the file's. */
export type StoreFact =
  | { readonly code: "ERR_STORE_OPEN"; readonly path: string }
  /** Written by a newer release; nothing was changed. */
  | { readonly code: "ERR_STORE_NEWER"; readonly path: string; readonly found: number; readonly supported: number }
  /** The transaction was rolled back, or its outcome is not known when the worker died. */
  | { readonly code: "ERR_STORE_WRITE"; readonly path: string }
  | { readonly code: "ERR_STORE_READ"; readonly path: string }
  /** A value that JSON cannot hold. */
  | { readonly code: "ERR_STORE_VALUE"; readonly kind: string; readonly id: string }
  | { readonly code: "ERR_STORE_CLOSED"; readonly path: string }
  /** Another daemon works in the directory. `pid` is 0 when it could not be read. */
  | { readonly code: "ERR_ROOT_LOCKED"; readonly path: string; readonly pid: number }
  | { readonly code: "ERR_INSTANCE_ID"; readonly path: string };

export class StoreError extends CodedError<StoreFact> {}
