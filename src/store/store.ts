import { Worker } from "node:worker_threads";
import { messageOf, unreachable } from "../lib/coded-error.ts";
import type { Log } from "../lib/log.ts";
import type { RecordKind, RecordWrite, Store, StoredRecord } from "../runtime/ports.ts";
import { StoreError } from "./errors.ts";
import type { Row, RowWrite, WorkerAnswer, WorkerRequest, WorkerStart } from "./messages.ts";
import type { StoreCondition } from "./open-database.ts";

export interface StoreOptions {
  /** The database file. Its directory exists. */
  readonly path: string;
  readonly log: Log;
  /** `AURAE_CRI_FAILPOINTS`, for `store.commit.before` and `store.commit.after`. */
  readonly failpoints?: string;
}

/** Disposing of it waits for the writes that were asked for, then closes the file. */
export interface OpenStore extends Store, AsyncDisposable {}

interface Pending {
  readonly code: "ERR_STORE_WRITE" | "ERR_STORE_READ";
  resolve(rows: readonly Row[]): void;
  reject(error: StoreError): void;
}

/** Opens or creates the database; a damaged one is moved aside, and `condition` says so. */
export async function openStore(options: StoreOptions): Promise<{ readonly store: OpenStore; readonly condition: StoreCondition }> {
  const { path, log } = options;
  const workerData: WorkerStart = { path, failpoints: options.failpoints ?? "" };
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { workerData, name: "store" });
  const ended = watchEnd(worker);
  const answer = await firstAnswer(worker, ended);
  if (answer.type === "opened") {
    if (typeof answer.condition === "object") log.error("store damaged", { path, ...answer.condition });
    return { store: new WorkerStore(worker, { path, log, ended }), condition: answer.condition };
  }
  await ended;
  const { fact, message } = answer.failure;
  throw new StoreError(fact ?? { code: "ERR_STORE_OPEN", path }, message);
}

/** Resolves with the reason once the thread is gone. Listens from the start: the end can come right behind an answer. */
async function watchEnd(worker: Worker): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let reason: string | undefined;
  worker.once("error", (error) => {
    reason = messageOf(error);
  });
  worker.once("exit", (code) => resolve(reason ?? `the store's thread has ended with code ${code}`));
  return await promise;
}

/** What the worker says first. */
type OpenAnswer = Extract<WorkerAnswer, { type: "opened" | "refused" }>;

async function firstAnswer(worker: Worker, ended: Promise<string>): Promise<OpenAnswer> {
  const { promise, resolve } = Promise.withResolvers<OpenAnswer>();
  worker.once("message", resolve);
  const silent = ended.then((message): OpenAnswer => ({ type: "refused", failure: { message, fact: undefined } }));
  return await Promise.race([promise, silent]);
}

interface WorkerStoreModules {
  readonly path: string;
  readonly log: Log;
  readonly ended: Promise<string>;
}

class WorkerStore implements OpenStore {
  readonly #worker: Worker;
  readonly #path: string;
  readonly #log: Log;
  readonly #pending = new Map<number, Pending>();
  readonly #ended: Promise<void>;
  #seq = 0;
  #state: { readonly kind: "open" } | { readonly kind: "closing" } | { readonly kind: "dead"; readonly reason: string } = { kind: "open" };

  /** `worker` has opened the database. */
  constructor(worker: Worker, { path, log, ended }: WorkerStoreModules) {
    this.#worker = worker;
    this.#path = path;
    this.#log = log;
    this.#ended = ended.then((reason) => this.#die(reason));
    worker.on("message", (answer: WorkerAnswer) => this.#settle(answer));
  }

  async write(writes: readonly RecordWrite[]): Promise<void> {
    if (writes.length === 0) return;
    const rows = writes.map(toRow);
    await this.#ask("ERR_STORE_WRITE", (seq) => ({ type: "write", seq, writes: rows }));
  }

  async list(kind: RecordKind): Promise<readonly StoredRecord[]> {
    const rows = await this.#ask("ERR_STORE_READ", (seq) => ({ type: "list", seq, kind }));
    return rows.map(({ id, json }) => ({ id, value: JSON.parse(json) as unknown }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#state.kind === "open") {
      this.#state = { kind: "closing" };
      this.#worker.postMessage({ type: "close" } satisfies WorkerRequest);
    }
    await this.#ended;
  }

  #ask(code: Pending["code"], request: (seq: number) => WorkerRequest): Promise<readonly Row[]> {
    if (this.#state.kind !== "open") return Promise.reject(this.#closedError());
    const seq = ++this.#seq;
    const { promise, resolve, reject } = Promise.withResolvers<readonly Row[]>();
    this.#pending.set(seq, { code, resolve, reject });
    this.#worker.postMessage(request(seq));
    return promise;
  }

  #settle(answer: WorkerAnswer): void {
    switch (answer.type) {
      case "written":
        for (const seq of answer.seqs) this.#take(seq)?.resolve([]);
        return;
      case "listed":
        this.#take(answer.seq)?.resolve(answer.rows);
        return;
      case "failed":
        for (const seq of answer.seqs) this.#fail(seq, answer.failure.message);
        return;
      case "opened":
      case "refused":
        return;
      default:
        unreachable(answer);
    }
  }

  #take(seq: number): Pending | undefined {
    const pending = this.#pending.get(seq);
    this.#pending.delete(seq);
    return pending;
  }

  #fail(seq: number, reason: string): void {
    const pending = this.#take(seq);
    pending?.reject(new StoreError({ code: pending.code, path: this.#path }, `${this.#path}: ${reason}`));
  }

  #die(reason: string): void {
    if (this.#state.kind === "dead") return;
    if (this.#state.kind === "open") this.#log.error("store died", { path: this.#path, reason });
    this.#state = { kind: "dead", reason };
    for (const seq of [...this.#pending.keys()]) this.#fail(seq, reason);
  }

  #closedError(): StoreError {
    const why = this.#state.kind === "dead" ? this.#state.reason : "the store is closing";
    return new StoreError({ code: "ERR_STORE_CLOSED", path: this.#path }, `${this.#path}: ${why}`);
  }
}

function toRow(write: RecordWrite): RowWrite {
  if (write.op === "delete") return write;
  const { kind, id } = write;
  try {
    const json: string | undefined = JSON.stringify(write.value);
    if (json !== undefined) return { op: "put", kind, id, json };
  } catch (cause) {
    throw new StoreError({ code: "ERR_STORE_VALUE", kind, id }, `record ${kind} ${id} does not fit JSON: ${messageOf(cause)}`, { cause });
  }
  throw new StoreError({ code: "ERR_STORE_VALUE", kind, id }, `record ${kind} ${id} has no value`);
}
