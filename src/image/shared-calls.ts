import { untilAborted } from "../lib/abort.ts";

interface Call<T> {
  readonly result: Promise<T>;
  readonly controller: AbortController;
  users: number;
}

/** Joins calls of one key while one is under way. The work is given up when its last caller has. */
export class SharedCalls<T> implements AsyncDisposable {
  readonly #calls = new Map<string, Call<T>>();
  readonly #running = new Set<Promise<unknown>>();

  /** Rejects with the signal's reason when it aborts first. */
  async run(key: string, signal: AbortSignal, task: (signal: AbortSignal) => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    const call = this.#calls.get(key) ?? this.#start(key, task);
    call.users++;
    try {
      return await untilAborted(call.result, signal);
    } finally {
      if (--call.users === 0) this.#end(key, call, signal.reason);
    }
  }

  /** Gives up everything and waits until it has ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const call of this.#calls.values()) call.controller.abort(new DOMException("shutting down", "AbortError"));
    await Promise.allSettled(this.#running);
  }

  #start(key: string, task: (signal: AbortSignal) => Promise<T>): Call<T> {
    const controller = new AbortController();
    const result = task(controller.signal);
    const call = { result, controller, users: 0 };
    this.#calls.set(key, call);
    this.#running.add(result);
    const settled = (): void => {
      this.#running.delete(result);
      if (this.#calls.get(key) === call) this.#calls.delete(key);
    };
    result.then(settled, settled);
    return call;
  }

  #end(key: string, call: Call<T>, reason: unknown): void {
    if (this.#calls.get(key) === call) this.#calls.delete(key);
    call.controller.abort(reason);
  }
}
