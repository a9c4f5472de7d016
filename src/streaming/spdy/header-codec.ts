import { createDeflate, createInflate, type Deflate, type Inflate, constants as zlib } from "node:zlib";

import { spdyError } from "../errors.ts";
import { DICTIONARY } from "./dictionary.ts";

/** Of one header block, inflated. Real clients send a few hundred bytes. */
const MAX_BLOCK_BYTES = 64 * 1024;

export type Headers = ReadonlyMap<string, string>;

/**
 * Header blocks of one connection. Each direction is one zlib stream that lasts as long as the connection, so blocks must be decoded and
 * encoded in the order of their frames: callers await each call before the next.
 */
export class HeaderCodec implements Disposable {
  readonly #deflate = new ZlibPipe(createDeflate({ dictionary: DICTIONARY, flush: zlib.Z_SYNC_FLUSH }));
  readonly #inflate = new ZlibPipe(createInflate({ dictionary: DICTIONARY, flush: zlib.Z_SYNC_FLUSH }));

  /** Throws `ERR_PROTOCOL` for a block that is no zlib, no header block or too large. */
  async decode(block: Buffer): Promise<Headers> {
    return parseHeaders(await this.#inflate.pass(block));
  }

  encode(headers: Headers): Promise<Buffer> {
    return this.#deflate.pass(formatHeaders(headers));
  }

  [Symbol.dispose](): void {
    this.#deflate[Symbol.dispose]();
    this.#inflate[Symbol.dispose]();
  }
}

/** Bytes in, what they become out; the stream's history goes on. */
class ZlibPipe implements Disposable {
  readonly #stream: Deflate | Inflate;
  #output: Buffer[] = [];
  #sizeBytes = 0;
  #fail: ((error: Error) => void) | undefined;

  constructor(stream: Deflate | Inflate) {
    this.#stream = stream;
    stream.on("data", (chunk: Buffer) => this.#take(chunk));
    stream.on("error", (error) => this.#fail?.(spdyError(`bad header compression: ${error.message}`)));
    stream.on("end", () => this.#fail?.(spdyError("the header compression ended")));
  }

  pass(input: Buffer): Promise<Buffer> {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    if (this.#stream.destroyed || this.#stream.readableEnded) reject(spdyError("the header compression ended"));
    else {
      this.#output = [];
      this.#sizeBytes = 0;
      this.#fail = reject;
      this.#stream.write(input, (error) => {
        if (error) reject(spdyError(`bad header compression: ${error.message}`));
        else resolve(Buffer.concat(this.#output));
      });
    }
    return promise;
  }

  #take(chunk: Buffer): void {
    this.#output.push(chunk);
    this.#sizeBytes += chunk.length;
    if (this.#sizeBytes <= MAX_BLOCK_BYTES) return;
    this.#output = [];
    this.#stream.destroy(spdyError(`a header block of more than ${MAX_BLOCK_BYTES} bytes`));
  }

  [Symbol.dispose](): void {
    this.#stream.destroy();
    this.#fail?.(spdyError("the connection has ended"));
  }
}

function parseHeaders(block: Buffer): Headers {
  const headers = new Map<string, string>();
  let offset = 0;
  const readInt = (): number => {
    if (offset + 4 > block.length) throw spdyError("a header block ends early");
    offset += 4;
    return block.readUInt32BE(offset - 4);
  };
  const readText = (): string => {
    const length = readInt();
    if (length > block.length - offset) throw spdyError("a header block ends early");
    offset += length;
    return block.toString("utf8", offset - length, offset);
  };
  for (let left = readInt(); left > 0; left--) {
    const name = readText().toLowerCase();
    headers.set(name, readText());
  }
  return headers;
}

function formatHeaders(headers: Headers): Buffer {
  const parts: Buffer[] = [int32(headers.size)];
  for (const [name, value] of headers) {
    for (const text of [Buffer.from(name), Buffer.from(value)]) parts.push(int32(text.length), text);
  }
  return Buffer.concat(parts);
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
