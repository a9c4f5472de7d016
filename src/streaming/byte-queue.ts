/** Bytes that may wait between the connection and the process before the connection is no longer read. */
const MAX_WAITING_BYTES = 64 * 1024;
const MAX_WAITING_CHUNKS = 64;
/** A smaller piece is copied, so that it does not hold the chunk it came in. */
const COPY_BELOW_BYTES = 8 * 1024;

/** One producer, one consumer. The consumer ends the queue by leaving its loop; what is pushed then is dropped. */
export class ByteQueue implements AsyncIterable<Buffer> {
  #chunks: Buffer[] = [];
  #sizeBytes = 0;
  #ended = false;
  #changed = Promise.withResolvers<void>();

  /** Resolves when there is room for more, or nobody reads any more. */
  async push(bytes: Buffer): Promise<void> {
    if (this.#ended || bytes.length === 0) return;
    this.#chunks.push(bytes.length < COPY_BELOW_BYTES ? Buffer.from(bytes) : bytes);
    this.#sizeBytes += bytes.length;
    this.#wake();
    while (!this.#ended && (this.#sizeBytes > MAX_WAITING_BYTES || this.#chunks.length > MAX_WAITING_CHUNKS)) await this.#changed.promise;
  }

  /** The consumer gets what waits, then the end. */
  end(): void {
    this.#ended = true;
    this.#wake();
  }

  /** Drops what waits. */
  discard(): void {
    this.#chunks = [];
    this.#sizeBytes = 0;
    this.end();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void, void> {
    try {
      for (;;) {
        const chunk = this.#chunks.shift();
        if (chunk !== undefined) {
          this.#sizeBytes -= chunk.length;
          this.#wake();
          yield chunk;
        } else if (this.#ended) return;
        else await this.#changed.promise;
      }
    } finally {
      this.discard();
    }
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
}
