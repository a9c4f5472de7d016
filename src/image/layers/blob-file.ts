import { fdatasync, fsyncSync, ftruncateSync, writeSync } from "node:fs";

import { overLimit } from "../errors.ts";

/** Bytes gathered before they are written. */
const BUFFER_BYTES = 1 << 20;
/** Bytes after which the disk is set to work, so that the last sync finds little left. */
const SYNC_EVERY_BYTES = 32 << 20;

/**
 * A file written from front to back through one buffer. Synchronous: it lives on a worker thread. Gaps are left as holes and read as
 * zeros.
 */
export class BlobFile {
  readonly #fd: number;
  readonly #maxBytes: number;
  readonly #buffer = Buffer.allocUnsafe(BUFFER_BYTES);
  #fill = 0;
  /** Where the buffer's first byte belongs. */
  #base = 0;
  #unsynced = 0;
  #syncing = false;

  constructor(fd: number, options: { readonly maxBytes: number }) {
    this.#fd = fd;
    this.#maxBytes = options.maxBytes;
  }

  /** Where the next byte goes. */
  get position(): number {
    return this.#base + this.#fill;
  }

  append(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length) {
      if (this.#fill === BUFFER_BYTES) this.#flush();
      const taken = Math.min(BUFFER_BYTES - this.#fill, bytes.length - at);
      bytes.copy(this.#buffer, this.#fill, at, at + taken);
      this.#fill += taken;
      at += taken;
    }
  }

  /** Moves on without writing. */
  skip(sizeBytes: number): void {
    if (this.#fill + sizeBytes <= BUFFER_BYTES) {
      this.#buffer.fill(0, this.#fill, this.#fill + sizeBytes);
      this.#fill += sizeBytes;
      return;
    }
    this.#flush();
    this.#base += sizeBytes;
    this.#check();
  }

  /** Moves on to the next multiple of `alignment`. */
  align(alignment: number): void {
    const over = this.position % alignment;
    if (over !== 0) this.skip(alignment - over);
  }

  /** Writes at the front, past the buffer. */
  overwriteStart(bytes: Buffer): void {
    this.#flush();
    writeAll(this.#fd, bytes, 0);
  }

  /** Sets the size and waits until everything is on the disk. */
  finish(sizeBytes: number): void {
    this.#flush();
    ftruncateSync(this.#fd, sizeBytes);
    fsyncSync(this.#fd);
  }

  #flush(): void {
    if (this.#fill === 0) return;
    writeAll(this.#fd, this.#buffer.subarray(0, this.#fill), this.#base);
    this.#base += this.#fill;
    this.#unsynced += this.#fill;
    this.#fill = 0;
    this.#check();
    if (this.#unsynced >= SYNC_EVERY_BYTES && !this.#syncing) this.#startSync();
  }

  #startSync(): void {
    this.#unsynced = 0;
    this.#syncing = true;
    // The last fsync reports what went wrong.
    fdatasync(this.#fd, () => {
      this.#syncing = false;
    });
  }

  #check(): void {
    if (this.#base > this.#maxBytes) throw overLimit("size", `it unpacks to more than ${this.#maxBytes} bytes`);
  }
}

function writeAll(fd: number, bytes: Buffer, position: number): void {
  let done = 0;
  while (done < bytes.length) done += writeSync(fd, bytes, done, bytes.length - done, position + done);
}
