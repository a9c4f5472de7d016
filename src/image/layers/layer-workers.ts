import { rm } from "node:fs/promises";
import { Worker } from "node:worker_threads";

import { joinSignals, untilAborted } from "../../lib/abort.ts";
import { ImageError, overLimit } from "../errors.ts";
import { abortedError } from "../registry/transport.ts";
import type { LayerJob, LayerResult } from "./layer-build.ts";
import { type FromWorker, fromWire, type ToWorker } from "./layer-protocol.ts";

export interface LayerWorkersOptions {
  /** Threads at most; each builds one layer at a time. */
  readonly maxWorkers: number;
  /** A thread without work for so long is ended. */
  readonly idleMs: number;
}

export type LayerSource = (signal: AbortSignal) => AsyncIterable<Buffer>;

/** Bytes on their way to a thread. */
const WINDOW_BYTES = 4 << 20;
/** Small pieces are gathered into one message of this size. */
const MESSAGE_BYTES = 256 << 10;
/** Enough for the tree of the largest layer that the entry limit allows. */
const MAX_HEAP_MB = 2048;

interface Slot {
  readonly worker: Worker;
  idleTimer: NodeJS.Timeout | undefined;
}

/** Threads that turn what a registry sends into blobs. The caller fetches; only bytes cross. */
export class LayerWorkers implements AsyncDisposable {
  readonly #options: LayerWorkersOptions;
  readonly #idle: Slot[] = [];
  readonly #all = new Set<Slot>();
  readonly #waiting: (() => void)[] = [];
  #busy = 0;
  #closed = false;

  constructor(options: LayerWorkersOptions) {
    this.#options = options;
  }

  /** Resolves when the blob is on the disk at `job.path`. On failure there is no file and `source` has ended: its signal aborts when the layer is refused half-way. */
  async build(job: LayerJob, source: LayerSource, signal: AbortSignal): Promise<LayerResult> {
    await this.#turn(signal);
    try {
      if (this.#closed) throw new ImageError({ code: "ERR_IMAGES_CLOSED" }, "the image store is closing");
      return await this.#buildOn(this.#take(), job, source, signal);
    } finally {
      this.#busy--;
      this.#waiting.shift()?.();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const slot of this.#all) clearTimeout(slot.idleTimer);
    await Promise.all([...this.#all].map((slot) => slot.worker.terminate()));
    this.#all.clear();
  }

  async #turn(signal: AbortSignal): Promise<void> {
    while (this.#busy >= this.#options.maxWorkers) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.push(resolve);
      try {
        await untilAborted(promise, signal);
      } catch {
        const place = this.#waiting.indexOf(resolve);
        // Woken and aborted at once: the turn goes to the next.
        if (place === -1) this.#waiting.shift()?.();
        else this.#waiting.splice(place, 1);
        throw abortedError(signal);
      }
    }
    this.#busy++;
  }

  async #buildOn(slot: Slot, job: LayerJob, source: LayerSource, signal: AbortSignal): Promise<LayerResult> {
    const { worker } = slot;
    const flow = new Flow();
    const { promise: answered, resolve, reject } = Promise.withResolvers<LayerResult>();
    const onMessage = (message: FromWorker): void => {
      if (message.type === "credit") flow.credit(message.sizeBytes);
      else if (message.type === "done") resolve(message.result);
      else reject(fromWire(message.error));
    };
    const onDeath = (error: unknown): void => {
      this.#drop(slot);
      reject(
        isOutOfMemory(error) ? overLimit("memory", "its tree does not fit into memory") : (error ?? new Error("the layer thread ended")),
      );
    };
    const onExit = (): void => onDeath(undefined);
    worker.on("message", onMessage).once("error", onDeath).once("exit", onExit);
    using scope = joinSignals(signal);
    answered
      .catch(() => {})
      .finally(() => {
        flow.stop();
        scope.abort();
      });
    let fed: { readonly failure: unknown } | undefined;
    try {
      worker.postMessage({ type: "start", job } satisfies ToWorker);
      fed = await feed(worker, source(scope.signal), flow, scope.signal);
      return await answered;
    } catch (error) {
      // The thread only knows that its source ended.
      throw fed?.failure ?? error;
    } finally {
      worker.off("message", onMessage).off("error", onDeath).off("exit", onExit);
      if (this.#all.has(slot)) this.#giveBack(slot);
      else await rm(job.path, { force: true });
    }
  }

  #take(): Slot {
    const idle = this.#idle.pop();
    if (idle !== undefined) {
      clearTimeout(idle.idleTimer);
      idle.worker.ref();
      return idle;
    }
    const worker = new Worker(new URL("./layer-worker.ts", import.meta.url), {
      name: "layer",
      env: {},
      resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
    });
    const slot: Slot = { worker, idleTimer: undefined };
    this.#all.add(slot);
    // Also between two jobs, when nobody else listens and an unheard error would end the daemon.
    worker.on("error", () => this.#drop(slot)).on("exit", () => this.#drop(slot));
    return slot;
  }

  #drop(slot: Slot): void {
    clearTimeout(slot.idleTimer);
    this.#all.delete(slot);
    const place = this.#idle.indexOf(slot);
    if (place !== -1) this.#idle.splice(place, 1);
  }

  #giveBack(slot: Slot): void {
    // An idle thread keeps nobody from exiting.
    slot.worker.unref();
    slot.idleTimer = setTimeout(() => {
      this.#drop(slot);
      void slot.worker.terminate();
    }, this.#options.idleMs);
    slot.idleTimer.unref();
    this.#idle.push(slot);
  }
}

/** How far the sender may run ahead. */
class Flow {
  #open = WINDOW_BYTES;
  #stopped = false;
  #wake: () => void = () => {};

  get stopped(): boolean {
    return this.#stopped;
  }

  credit(sizeBytes: number): void {
    this.#open += sizeBytes;
    this.#wake();
  }

  /** The other side has answered and takes no more. */
  stop(): void {
    this.#stopped = true;
    this.#wake();
  }

  async take(sizeBytes: number, signal: AbortSignal): Promise<void> {
    while (this.#open <= 0 && !this.#stopped) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await untilAborted(promise, signal);
    }
    this.#open -= sizeBytes;
  }
}

/** Sends all of `source`, and tells the thread how it ended. The failure of the source is answered, not thrown: the thread must answer first. */
async function feed(
  worker: Worker,
  source: AsyncIterable<Buffer>,
  flow: Flow,
  signal: AbortSignal,
): Promise<{ readonly failure: unknown }> {
  try {
    for await (const bytes of gathered(source)) {
      if (signal.aborted) throw abortedError(signal);
      await flow.take(bytes.byteLength, signal);
      if (flow.stopped) return { failure: undefined };
      worker.postMessage({ type: "chunk", bytes } satisfies ToWorker, [bytes.buffer]);
    }
    worker.postMessage({ type: "end" } satisfies ToWorker);
    return { failure: undefined };
  } catch (error) {
    if (flow.stopped) return { failure: undefined };
    worker.postMessage({ type: "abort" } satisfies ToWorker);
    return { failure: signal.aborted ? abortedError(signal) : error };
  }
}

/** In buffers of their own, which can be handed to another thread. */
async function* gathered(source: AsyncIterable<Buffer>): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  let buffer = new Uint8Array(MESSAGE_BYTES);
  let fill = 0;
  for await (const chunk of source) {
    let at = 0;
    while (at < chunk.length) {
      const taken = Math.min(MESSAGE_BYTES - fill, chunk.length - at);
      buffer.set(chunk.subarray(at, at + taken), fill);
      fill += taken;
      at += taken;
      if (fill < MESSAGE_BYTES) continue;
      yield buffer;
      buffer = new Uint8Array(MESSAGE_BYTES);
      fill = 0;
    }
  }
  if (fill > 0) yield buffer.slice(0, fill);
}

function isOutOfMemory(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ERR_WORKER_OUT_OF_MEMORY";
}
