import type { Writable } from "node:stream";

/**
 * Gathers what is written within one turn of the event loop into one write: each write wakes whoever reads, which can cost more than
 * copying the bytes.
 */
export class WriteBatch {
  readonly #stream: Writable;
  readonly #limitBytes: number;
  #open = false;
  #drained: Promise<void> | undefined;

  /** The stream may hold `limitBytes` before `ready` waits. */
  constructor(stream: Writable, limitBytes: number) {
    this.#stream = stream;
    this.#limitBytes = limitBytes;
  }

  add(...parts: readonly Buffer[]): void {
    if (!this.#open) {
      this.#open = true;
      this.#stream.cork();
      setImmediate(() => {
        this.#open = false;
        this.#stream.uncork();
      });
    }
    for (const part of parts) this.#stream.write(part);
  }

  /** Resolves when more may be added, or the stream has closed. */
  async ready(): Promise<void> {
    if (this.#stream.writableLength < this.#limitBytes || this.#stream.destroyed) return;
    this.#drained ??= this.#nextDrain();
    await this.#drained;
  }

  async #nextDrain(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const done = () => resolve();
    this.#stream.on("drain", done).on("close", done);
    await promise;
    this.#stream.off("drain", done).off("close", done);
    this.#drained = undefined;
  }
}
