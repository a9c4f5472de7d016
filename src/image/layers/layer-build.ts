import { createHash, type Hash } from "node:crypto";
import { closeSync, fchmodSync, fstatSync, openSync, rmSync } from "node:fs";
import { asDigest, type Digest } from "../digest.ts";
import { digestMismatch, fromIo, ImageError, malformed } from "../errors.ts";
import { BlobFile } from "./blob-file.ts";
import { ErofsWriter } from "./erofs-writer.ts";
import { inflate } from "./inflate.ts";
import { LayerTree } from "./layer-tree.ts";
import { TarReader, type TarSink } from "./tar-reader.ts";

export interface LayerLimits {
  /** Of the blob before padding. */
  readonly maxLayerBytes: number;
  readonly maxEntries: number;
}

/** One layer to make. */
export interface LayerJob extends LayerLimits {
  /** Of what the registry sends. */
  readonly digest: Digest;
  readonly sizeBytes: number;
  /** Of the uncompressed tar. */
  readonly diffId: Digest;
  /** Where the blob is written; the caller moves it to its place. Must not exist. */
  readonly path: string;
}

export interface LayerResult {
  readonly blobBytes: number;
  /** What the file system gave it. */
  readonly diskBytes: number;
  readonly tarBytes: number;
}

/**
 * The one pass of a layer: compressed bytes → digest → inflate → diff-id → tar → EROFS blob, on the disk when this resolves. On failure
 * no file is left.
 */
export async function buildLayer(job: LayerJob, source: AsyncIterable<Buffer>): Promise<LayerResult> {
  let fd: number | undefined;
  try {
    fd = openSync(job.path, "wx", 0o600);
    // A microVM's QEMU reads it as a user of its own. Others are kept out by the directory.
    fchmodSync(fd, 0o444);
    return await writeLayer(job, source, fd);
  } catch (error) {
    rmSync(job.path, { force: true });
    throw fromIo(error, job.path);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

async function writeLayer(job: LayerJob, source: AsyncIterable<Buffer>, fd: number): Promise<LayerResult> {
  const writer = new ErofsWriter(new BlobFile(fd, { maxBytes: job.maxLayerBytes }));
  const tree = new LayerTree({ maxEntries: job.maxEntries });
  const reader = new TarReader(sinkInto(tree, writer));
  const compressed = new CountingHash();
  const plain = new CountingHash();
  const input = source[Symbol.asyncIterator]();
  try {
    for await (const chunk of inflate(compressed.tap(input))) {
      plain.update(chunk);
      reader.push(chunk);
    }
  } catch (error) {
    if (!isMalformed(error)) throw error;
    // The rest tells whether the layer is wrong or its transfer was.
    for await (const _ of compressed.tap(input));
    compressed.expect("layer blob", job.digest, job.sizeBytes);
    throw error;
  } finally {
    await input.return?.();
  }
  // Digests before structure: a damaged transfer should be called that.
  compressed.expect("layer blob", job.digest, job.sizeBytes);
  plain.expect("uncompressed layer (diff-id)", job.diffId, undefined);
  reader.finish();
  const blobBytes = writer.finish(tree.root, uuidOf(job.diffId));
  return { blobBytes, diskBytes: fstatSync(fd).blocks * 512, tarBytes: plain.sizeBytes };
}

function sinkInto(tree: LayerTree, writer: ErofsWriter): TarSink {
  let waiting = false;
  return {
    entry(entry) {
      const node = tree.add(entry);
      waiting = node !== undefined;
      if (node !== undefined && node.sizeBytes > 0) writer.beginFile(node);
    },
    data(bytes) {
      if (waiting) writer.data(bytes);
    },
    hole(sizeBytes) {
      if (waiting) writer.hole(sizeBytes);
    },
    endEntry() {
      waiting = false;
    },
  };
}

class CountingHash {
  readonly #hash: Hash = createHash("sha256");
  sizeBytes = 0;

  update(chunk: Buffer): void {
    this.#hash.update(chunk);
    this.sizeBytes += chunk.length;
  }

  /** Passes on what it counts. Leaving early does not close `source`. */
  async *tap(source: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
    for (;;) {
      const { value, done } = await source.next();
      if (done === true) return;
      this.update(value);
      yield value;
    }
  }

  expect(what: string, digest: Digest, sizeBytes: number | undefined): void {
    const actual = asDigest(this.#hash.digest("hex"));
    if (actual !== digest) throw digestMismatch(what, digest, actual);
    if (sizeBytes !== undefined && sizeBytes !== this.sizeBytes)
      throw malformed(`the blob has ${this.sizeBytes} bytes, its manifest says ${sizeBytes}`);
  }
}

function isMalformed(error: unknown): boolean {
  return error instanceof ImageError && error.fact.code === "ERR_LAYER_MALFORMED";
}

/** The layer's own, so that the same layer gives the same bytes; marked as a custom one (version 8). */
function uuidOf(diffId: Digest): Buffer {
  const uuid = Buffer.from(diffId.slice("sha256:".length), "hex").subarray(0, 16);
  uuid[6] = ((uuid[6] ?? 0) & 0x0f) | 0x80;
  uuid[8] = ((uuid[8] ?? 0) & 0x3f) | 0x80;
  return uuid;
}
