const MAGIC = 0xfd2fb528;
/** Sixteen numbers from here mark frames to skip. */
const SKIPPABLE = 0x184d2a50;
const BLOCK_RLE = 1;

export function isZstd(head: Buffer): boolean {
  if (head.length < 4) return false;
  const magic = head.readUInt32LE(0);
  return magic === MAGIC || isSkippable(magic);
}

function isSkippable(magic: number): boolean {
  return (magic & 0xfffffff0) >>> 0 === SKIPPABLE;
}

/**
 * Cuts a zstd stream so that no piece holds the end of one frame and the start of the next: Node's decompressor drops what follows a
 * frame in the same write. Parallel compressors and seekable layers have many frames.
 */
export async function* splitFrames(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const scanner = new FrameScanner();
  for await (const chunk of source) {
    let start = 0;
    for (const end of scanner.scan(chunk)) {
      yield chunk.subarray(start, end);
      start = end;
    }
    if (start < chunk.length) yield chunk.subarray(start);
  }
}

/** Follows the frame format (RFC 8878) without decoding: magic, header, blocks, checksum. What is malformed is left to the decoder. */
class FrameScanner {
  /** Bytes of the current header, which may come in pieces. */
  #header = Buffer.alloc(0);
  #step: "magic" | "skip-size" | "descriptor" | "block" = "magic";
  /** Payload to pass over before the next header. */
  #payload = 0;
  #checksumBytes = 0;
  /** The frame is over when the payload is. */
  #ending = false;

  /** Where in the chunk frames end. */
  *scan(chunk: Buffer): Generator<number> {
    let at = 0;
    while (at < chunk.length) {
      if (this.#payload > 0) {
        const taken = Math.min(this.#payload, chunk.length - at);
        this.#payload -= taken;
        at += taken;
      } else {
        const taken = Math.min(this.#wanted() - this.#header.length, chunk.length - at);
        this.#header = Buffer.concat([this.#header, chunk.subarray(at, at + taken)]);
        at += taken;
        if (this.#header.length === this.#wanted()) this.#advance();
      }
      if (this.#payload === 0 && this.#ending) {
        this.#ending = false;
        this.#step = "magic";
        yield at;
      }
    }
  }

  #wanted(): number {
    switch (this.#step) {
      case "magic":
      case "skip-size":
        return 4;
      case "descriptor":
        return 1;
      case "block":
        return 3;
    }
  }

  #advance(): void {
    const header = this.#header;
    this.#header = Buffer.alloc(0);
    switch (this.#step) {
      case "magic":
        this.#step = isSkippable(header.readUInt32LE(0)) ? "skip-size" : "descriptor";
        return;
      case "skip-size":
        this.#payload = header.readUInt32LE(0);
        this.#ending = true;
        return;
      case "descriptor": {
        const descriptor = header[0] ?? 0;
        const singleSegment = (descriptor & 0x20) !== 0;
        const contentSize = [singleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
        this.#payload = (singleSegment ? 0 : 1) + ([0, 1, 2, 4][descriptor & 3] ?? 0) + contentSize;
        this.#checksumBytes = (descriptor & 4) === 0 ? 0 : 4;
        this.#step = "block";
        return;
      }
      case "block": {
        const block = header.readUIntLE(0, 3);
        this.#payload = ((block >> 1) & 3) === BLOCK_RLE ? 1 : block >> 3;
        this.#ending = (block & 1) === 1;
        if (this.#ending) this.#payload += this.#checksumBytes;
        return;
      }
    }
  }
}
