import { CodedError } from "./coded-error.ts";

export type QueueFact =
  | { readonly code: "ERR_QUEUE_FULL"; readonly key: string; readonly waiting: number }
  | { readonly code: "ERR_QUEUE_CLOSED"; readonly key: string };

export class QueueError extends CodedError<QueueFact> {}

interface Waiter {
  start(): void;
  refuse(error: unknown): void;
}

/**
 * One task at a time per key, in order of arrival; keys do not wait for each other.
 *
 * A caller that aborts while waiting leaves the line at once. A task under way is never interrupted from here: it watches its own
 * signal, and the next one starts only when it has settled.
 */
export class KeyedQueue implements AsyncDisposable {
  readonly #maxWaiting: number;
  /** Present while a task of the key runs. */
  readonly #lines = new Map<string, Waiter[]>();
  readonly #running = new Set<Promise<unknown>>();
  #closed = false;

  /** `maxWaiting` bounds each key's line, the running task not counted. */
  constructor(options: { readonly maxWaiting: number }) {
    this.#maxWaiting = options.maxWaiting;
  }

  /** Answers like `task`. Rejects with the signal's reason, `ERR_QUEUE_FULL` or `ERR_QUEUE_CLOSED` when the task was never started. */
  async run<T>(key: string, signal: AbortSignal, task: () => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    if (this.#closed) throw closedError(key);
    await this.#turn(key, signal);
    const running = this.#follow(key, task);
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }

  /** Refuses all that wait and all that come, then waits for the tasks under way. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const [key, line] of this.#lines) for (const waiter of line.splice(0)) waiter.refuse(closedError(key));
    await Promise.allSettled(this.#running);
  }

  async #follow<T>(key: string, task: () => Promise<T>): Promise<T> {
    try {
      return await task();
    } finally {
      const next = this.#lines.get(key)?.shift();
      if (next === undefined) this.#lines.delete(key);
      else next.start();
    }
  }

  async #turn(key: string, signal: AbortSignal): Promise<void> {
    const line = this.#lines.get(key);
    if (line === undefined) {
      this.#lines.set(key, []);
      return;
    }
    if (line.length >= this.#maxWaiting) throw fullError(key, line.length);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter: Waiter = { start: resolve, refuse: reject };
    const onAbort = (): void => {
      const place = line.indexOf(waiter);
      if (place === -1) return;
      line.splice(place, 1);
      reject(signal.reason);
    };
    line.push(waiter);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      await promise;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }
}

function fullError(key: string, waiting: number): QueueError {
  return new QueueError({ code: "ERR_QUEUE_FULL", key, waiting }, `${key}: ${waiting} operations are waiting already; try again later`);
}

function closedError(key: string): QueueError {
  return new QueueError({ code: "ERR_QUEUE_CLOSED", key }, `${key}: shutting down`);
}
