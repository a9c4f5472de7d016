import { randomBytes } from "node:crypto";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { z } from "zod";

import { syncDirectory } from "../../lib/atomic-write.ts";
import { failpoint } from "../../lib/failpoint.ts";
import { KeyedQueue } from "../../lib/keyed-queue.ts";
import type { Log } from "../../lib/log.ts";
import type { Store } from "../../runtime/ports.ts";
import { type Digest, hexOf, isDigest } from "../digest.ts";
import { fromIo } from "../errors.ts";
import type { Descriptor } from "../manifest.ts";
import type { LayerLimits, LayerResult } from "./layer-build.ts";
import type { LayerSource, LayerWorkers } from "./layer-workers.ts";

interface LayerRecord {
  readonly blobBytes: number;
  readonly diskBytes: number;
}

const recordSchema = z.object({ blobBytes: z.number(), diskBytes: z.number() });
const MAX_WAITING = 4096;

/**
 * The blobs of this node, one per diff-id.
 *
 * Coming: temporary file, synced → renamed, directory synced → recorded. Going: record deleted → file deleted. So a record always has its file,
 * and a file without a record is litter that `open` sweeps.
 */
export class Layers implements AsyncDisposable {
  readonly #dir: string;
  readonly #limits: LayerLimits;
  readonly #store: Store;
  readonly #log: Log;
  readonly #workers: LayerWorkers;
  readonly #records = new Map<Digest, LayerRecord>();
  /** Pulls under way that count on a layer. */
  readonly #holds = new Map<Digest, number>();
  /** Coming and going of one layer never overlap. */
  readonly #queue = new KeyedQueue({ maxWaiting: MAX_WAITING });

  constructor(
    options: LayerLimits & { readonly root: string },
    modules: { readonly store: Store; readonly log: Log; readonly workers: LayerWorkers },
  ) {
    this.#dir = join(options.root, "layers", "sha256");
    this.#limits = options;
    this.#store = modules.store;
    this.#log = modules.log;
    this.#workers = modules.workers;
  }

  /** Reads the records, drops those whose blob is gone or cut, deletes files that have none. */
  async open(): Promise<void> {
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    for (const { id, value } of await this.#store.list("layer")) {
      const record = recordSchema.safeParse(value);
      if (isDigest(id) && record.success && (await sizeOf(this.blobPath(id))) === record.data.blobBytes) this.#records.set(id, record.data);
      else {
        this.#log.warn("layer dropped: its blob is missing or damaged", { diffId: id });
        await this.#store.write([{ op: "delete", kind: "layer", id }]);
      }
    }
    const known = new Set([...this.#records.keys()].map((diffId) => basename(this.blobPath(diffId))));
    for (const name of await readdir(this.#dir)) if (!known.has(name)) await rm(join(this.#dir, name), { force: true });
  }

  blobPath(diffId: Digest): string {
    return join(this.#dir, `${hexOf(diffId)}.erofs`);
  }

  has(diffId: Digest): boolean {
    return this.#records.has(diffId);
  }

  /** Keeps layers from collection, also those still to come, until disposed. */
  hold(diffIds: readonly Digest[]): Disposable {
    for (const diffId of diffIds) this.#holds.set(diffId, (this.#holds.get(diffId) ?? 0) + 1);
    return {
      [Symbol.dispose]: () => {
        for (const diffId of diffIds) {
          const left = (this.#holds.get(diffId) ?? 1) - 1;
          if (left === 0) this.#holds.delete(diffId);
          else this.#holds.set(diffId, left);
        }
      },
    };
  }

  /** Makes the layer unless it is there. Simultaneous calls for one layer wait for the first, and take over if that fails. */
  ensure(diffId: Digest, descriptor: Descriptor, source: LayerSource, signal: AbortSignal): Promise<void> {
    return this.#queue.run(diffId, signal, async () => {
      if (this.#records.has(diffId)) return;
      const path = join(this.#dir, `.${hexOf(diffId)}.${randomBytes(6).toString("hex")}.tmp`);
      const job = { ...this.#limits, digest: descriptor.digest, sizeBytes: descriptor.sizeBytes, diffId, path };
      const result = await this.#workers.build(job, source, signal);
      await this.#publish(diffId, path, result);
    });
  }

  /** Deletes what nobody needs. `needed` is asked again right before each deletion. */
  async collect(needed: (diffId: Digest) => boolean): Promise<void> {
    const signal = new AbortController().signal;
    for (const diffId of this.#records.keys()) {
      if (needed(diffId) || this.#holds.has(diffId)) continue;
      await this.#queue.run(diffId, signal, async () => {
        if (needed(diffId) || this.#holds.has(diffId) || !this.#records.has(diffId)) return;
        await this.#delete(diffId);
      });
    }
  }

  /** Bytes and files on the disk. */
  usage(): { readonly usedBytes: number; readonly files: number } {
    let usedBytes = 0;
    for (const record of this.#records.values()) usedBytes += record.diskBytes;
    return { usedBytes, files: this.#records.size };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#queue[Symbol.asyncDispose]();
  }

  async #publish(diffId: Digest, path: string, { blobBytes, diskBytes }: LayerResult): Promise<void> {
    const target = this.blobPath(diffId);
    try {
      failpoint("image.layer.rename.before");
      await rename(path, target);
      await syncDirectory(dirname(target));
    } catch (error) {
      await rm(path, { force: true });
      throw fromIo(error, target);
    }
    failpoint("image.layer.record.before");
    await this.#store.write([{ op: "put", kind: "layer", id: diffId, value: { blobBytes, diskBytes } satisfies LayerRecord }]);
    failpoint("image.layer.record.after");
    this.#records.set(diffId, { blobBytes, diskBytes });
  }

  async #delete(diffId: Digest): Promise<void> {
    const record = this.#records.get(diffId);
    this.#records.delete(diffId);
    try {
      failpoint("image.layer.delete.before");
      await this.#store.write([{ op: "delete", kind: "layer", id: diffId }]);
    } catch (error) {
      if (record !== undefined) this.#records.set(diffId, record);
      throw error;
    }
    failpoint("image.layer.delete.after");
    await rm(this.blobPath(diffId), { force: true });
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch {
    return undefined;
  }
}
