import { once } from "node:events";
import { createGunzip, createZstdDecompress } from "node:zlib";

import { malformed } from "../errors.ts";
import { isZstd, splitFrames } from "./zstd-frames.ts";

/** Room for the decompressor to run ahead on its own thread while this one hashes and writes. */
const decoderOptions = { chunkSize: 256 << 10, highWaterMark: 2 << 20 };

type Decoder = ReturnType<typeof createGunzip> | ReturnType<typeof createZstdDecompress>;

/**
 * Decompresses gzip (any number of members) and zstd (any number of frames); passes everything else through. By what the bytes are, not
 * by the media type: registries are known to mislabel. Reads `source` to its end even when the compressed data ends before it, but not
 * beyond a failure, and leaves it open then.
 */
export async function* inflate(source: AsyncGenerator<Buffer>): AsyncGenerator<Buffer> {
  let head: Buffer = Buffer.alloc(0);
  while (head.length < 4) {
    const { value, done } = await source.next();
    if (done === true) break;
    head = head.length === 0 ? value : Buffer.concat([head, value]);
  }
  const whole = prepend(head, source);
  if (head[0] === 0x1f && head[1] === 0x8b) yield* through(createGunzip(decoderOptions), whole);
  else if (isZstd(head)) yield* through(createZstdDecompress(decoderOptions), splitFrames(whole));
  else yield* whole;
}

async function* through(decoder: Decoder, source: AsyncGenerator<Buffer>): AsyncGenerator<Buffer> {
  const feeding = { wanted: true };
  const fed = feed(decoder, source, feeding);
  // Looked at below; the decoder carries the source's failure to its reader first.
  fed.catch(() => {});
  let complete = false;
  try {
    for await (const chunk of decoder) yield chunk as Buffer;
    complete = true;
  } catch (error) {
    throw isDecodeError(error) ? malformed(`it cannot be decompressed: ${error.message}`) : error;
  } finally {
    feeding.wanted = complete;
    decoder.destroy();
    await fed.catch(() => {});
  }
  await fed;
}

async function feed(decoder: Decoder, source: AsyncGenerator<Buffer>, feeding: { readonly wanted: boolean }): Promise<void> {
  try {
    for await (const chunk of source) {
      if (!feeding.wanted) return;
      // A decoder that has met the end of its data takes no more, but the rest still belongs to the blob.
      if (decoder.destroyed || decoder.write(chunk)) continue;
      const closed = new AbortController();
      const { signal } = closed;
      await Promise.race([once(decoder, "drain", { signal }), once(decoder, "close", { signal })]).catch(() => {});
      closed.abort();
    }
    if (!decoder.destroyed) decoder.end();
  } catch (error) {
    decoder.destroy(error instanceof Error ? error : new Error(String(error)));
    throw error;
  }
}

function isDecodeError(error: unknown): error is Error {
  return error instanceof Error && "code" in error && /^(Z_|ZSTD_)/.test(String(error.code));
}

async function* prepend(head: Buffer, rest: AsyncGenerator<Buffer>): AsyncGenerator<Buffer> {
  if (head.length > 0) yield head;
  yield* rest;
}
