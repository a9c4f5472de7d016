import type { RecordKind } from "../runtime/ports.ts";
import type { StoreFact } from "./errors.ts";
import type { StoreCondition } from "./open-database.ts";

/** What crosses between the store and its worker thread. Values travel as JSON text: the worker never parses them. */
export interface WorkerStart {
  readonly path: string;
  /** Armed in the worker too: modules are not shared between threads. */
  readonly failpoints: string;
}

export type RowWrite =
  | { readonly op: "put"; readonly kind: RecordKind; readonly id: string; readonly json: string }
  | { readonly op: "delete"; readonly kind: RecordKind; readonly id: string };

export type WorkerRequest =
  | { readonly type: "write"; readonly seq: number; readonly writes: readonly RowWrite[] }
  | { readonly type: "list"; readonly seq: number; readonly kind: RecordKind }
  | { readonly type: "close" };

export interface Row {
  readonly id: string;
  readonly json: string;
}

/** `fact` is absent when the failure is not a `StoreError`. */
export interface WorkerFailure {
  readonly message: string;
  readonly fact: StoreFact | undefined;
}

export type WorkerAnswer =
  | { readonly type: "opened"; readonly condition: StoreCondition }
  | { readonly type: "refused"; readonly failure: WorkerFailure }
  /** One per commit: every write that shared it. */
  | { readonly type: "written"; readonly seqs: readonly number[] }
  | { readonly type: "listed"; readonly seq: number; readonly rows: readonly Row[] }
  | { readonly type: "failed"; readonly seqs: readonly number[]; readonly failure: WorkerFailure };
