/**
 * The thread that owns the database. Requests are answered in order; the writes that have piled up while a commit was under way share
 * the next one, so a burst costs a few fsyncs and not one each. Those that share a commit fail together too: what makes one fail (a
 * full or broken disk) would not have spared the others.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { messageOf } from "../lib/coded-error.ts";
import { armFailpoints, failpoint } from "../lib/failpoint.ts";
import { StoreError } from "./errors.ts";
import type { Row, WorkerAnswer, WorkerFailure, WorkerRequest, WorkerStart } from "./messages.ts";
import { openDatabase } from "./open-database.ts";

type WriteRequest = Extract<WorkerRequest, { type: "write" }>;

/** Bounds a transaction: beyond it the latency of the first write in it matters more than the fsync saved. */
const MAX_GROUP = 256;

class DatabaseServer {
  readonly #db: DatabaseSync;
  readonly #port: MessagePort;
  readonly #put: StatementSync;
  readonly #delete: StatementSync;
  readonly #list: StatementSync;

  constructor(db: DatabaseSync, port: MessagePort) {
    this.#db = db;
    this.#port = port;
    this.#put = db.prepare("INSERT INTO record (kind, id, value) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value");
    this.#delete = db.prepare("DELETE FROM record WHERE kind = ? AND id = ?");
    this.#list = db.prepare("SELECT id, value AS json FROM record WHERE kind = ? ORDER BY id");
  }

  serve(first: WorkerRequest): void {
    let next: WorkerRequest | undefined = first;
    while (next !== undefined) {
      if (next.type === "write") {
        next = this.#commitGroup(next);
        continue;
      }
      if (next.type === "close") return this.#close();
      this.#answerList(next);
      next = this.#poll();
    }
  }

  #poll(): WorkerRequest | undefined {
    return receiveMessageOnPort(this.#port)?.message;
  }

  /** Commits `first` with the writes waiting behind it; answers the request that ended the group. */
  #commitGroup(first: WriteRequest): WorkerRequest | undefined {
    const group = [first];
    let next = this.#poll();
    while (next?.type === "write" && group.length < MAX_GROUP) {
      group.push(next);
      next = this.#poll();
    }
    const seqs = group.map((request) => request.seq);
    try {
      this.#commit(group);
      this.#answer({ type: "written", seqs });
    } catch (error) {
      this.#answer({ type: "failed", seqs, failure: failureOf(error) });
    }
    return next;
  }

  #commit(group: readonly WriteRequest[]): void {
    failpoint("store.commit.before");
    this.#db.exec("BEGIN IMMEDIATE");
    try {
      for (const write of group.flatMap((request) => request.writes)) {
        if (write.op === "put") this.#put.run(write.kind, write.id, write.json);
        else this.#delete.run(write.kind, write.id);
      }
      this.#db.exec("COMMIT");
    } catch (error) {
      // SQLite has rolled back by itself after some errors (disk full, I/O).
      if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
      throw error;
    }
    failpoint("store.commit.after");
  }

  #answerList(request: Extract<WorkerRequest, { type: "list" }>): void {
    try {
      const rows = this.#list.all(request.kind) as unknown as readonly Row[];
      // Plain copies: rows come with a null prototype, which structured clone would keep apart.
      this.#answer({ type: "listed", seq: request.seq, rows: rows.map(({ id, json }) => ({ id, json })) });
    } catch (error) {
      this.#answer({ type: "failed", seqs: [request.seq], failure: failureOf(error) });
    }
  }

  #answer(answer: WorkerAnswer): void {
    this.#port.postMessage(answer);
  }

  #close(): void {
    this.#db.close();
    this.#port.close();
  }
}

function failureOf(error: unknown): WorkerFailure {
  return { message: messageOf(error), fact: error instanceof StoreError ? error.fact : undefined };
}

function start(port: MessagePort, { path, failpoints }: WorkerStart): void {
  armFailpoints(failpoints);
  try {
    const { db, condition } = openDatabase(path);
    const server = new DatabaseServer(db, port);
    port.on("message", (request: WorkerRequest) => server.serve(request));
    port.postMessage({ type: "opened", condition } satisfies WorkerAnswer);
  } catch (error) {
    port.postMessage({ type: "refused", failure: failureOf(error) } satisfies WorkerAnswer);
    port.close();
  }
}

if (parentPort !== null) start(parentPort, workerData as WorkerStart);
