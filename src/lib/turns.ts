import { untilAborted } from "./abort.ts";

export interface TurnsOptions {
  /** How many hold a turn at once. */
  readonly limit: number;
  /** A turn that lasts longer no longer counts: who is stuck does not hold up the others for good. */
  readonly longestMs: number;
}

/** Lets a limited number in at a time, in order of arrival. */
export class Turns {
  readonly #options: TurnsOptions;
  readonly #line: PromiseWithResolvers<Disposable>[] = [];
  #held = 0;

  constructor(options: TurnsOptions) {
    this.#options = options;
  }

  /** Waits for a turn, which is over when disposed. Rejects with the signal's reason when it aborts before. */
  async take(signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted();
    if (this.#held < this.#options.limit) return this.#begin();
    const waiter = Promise.withResolvers<Disposable>();
    this.#line.push(waiter);
    try {
      return await untilAborted(waiter.promise, signal);
    } catch (error) {
      const place = this.#line.indexOf(waiter);
      if (place >= 0) this.#line.splice(place, 1);
      // It came in the same moment.
      else (await waiter.promise)[Symbol.dispose]();
      throw error;
    }
  }

  #begin(): Disposable {
    this.#held++;
    let over = false;
    const end = (): void => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      this.#held--;
      this.#line.shift()?.resolve(this.#begin());
    };
    const timer = setTimeout(end, this.#options.longestMs);
    return { [Symbol.dispose]: end };
  }
}
