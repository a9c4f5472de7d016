import { createHash } from "node:crypto";

import { failpoint } from "../lib/failpoint.ts";
import { KeyedQueue } from "../lib/keyed-queue.ts";
import type { Log } from "../lib/log.ts";
import { nowNs } from "../lib/time.ts";
import type { FilesystemUsage, Image, ImageLayer, Images, PullRequest, RecordWrite, Store } from "../runtime/ports.ts";
import type { Digest } from "./digest.ts";
import { ImageError } from "./errors.ts";
import { findImage } from "./find-image.ts";
import { type HeldImage, holdImage, type ImageRecord, type RecordContext, readImage } from "./image-record.ts";
import { type Claim, LayerClaims, uppermostFirst } from "./layers/layer-claims.ts";
import type { LayerMounter } from "./layers/layer-mounter.ts";
import { LayerWorkers } from "./layers/layer-workers.ts";
import { Layers } from "./layers/layers.ts";
import type { ImageOptions } from "./options.ts";
import { type PulledImage, pullImage } from "./pull.ts";
import { formatReference, parseReference, type Reference } from "./reference.ts";
import { endpointsOf } from "./registry/hosts.ts";
import { Repository } from "./registry/registry.ts";
import { Tokens } from "./registry/tokens.ts";
import { abortedError, Transport } from "./registry/transport.ts";
import { SharedCalls } from "./shared-calls.ts";

export interface ImageModules {
  readonly store: Store;
  readonly log: Log;
  readonly layerMounter: LayerMounter;
}

export interface ImageRoom extends Images, AsyncDisposable {}

/** Threads over all pulls; each pull has its own, lower limit. */
const MAX_WORKERS = 6;
const WORKER_IDLE_MS = 15_000;
/** Of waiting changes to the list of images. */
const MAX_WAITING = 10_000;

/** Reads what is stored and cleans up after a crash. `recoverMounts` must follow before anything is collected. */
export async function openImages(options: ImageOptions, modules: ImageModules): Promise<ImageRoom> {
  const images = new ImageStore(options, modules);
  await images.open();
  return images;
}

class ImageStore implements ImageRoom {
  readonly #options: ImageOptions;
  readonly #store: Store;
  readonly #log: Log;
  readonly #transport: Transport;
  readonly #tokens: Tokens;
  readonly #workers: LayerWorkers;
  readonly #layers: Layers;
  readonly #claims: LayerClaims;
  readonly #pulls = new SharedCalls<string>();
  /** Changes to the records, one after the other. */
  readonly #changes = new KeyedQueue({ maxWaiting: MAX_WAITING });
  readonly #images = new Map<Digest, HeldImage>();
  readonly #context: RecordContext;
  /** Before the claims of an earlier life are known, nothing may be deleted. */
  #recovered = false;
  #closed = false;

  constructor(options: ImageOptions, modules: ImageModules) {
    this.#options = options;
    this.#store = modules.store;
    this.#log = modules.log;
    this.#transport = new Transport(options);
    this.#tokens = new Tokens(this.#transport);
    this.#workers = new LayerWorkers({ maxWorkers: MAX_WORKERS, idleMs: WORKER_IDLE_MS });
    const limits = { root: options.root, maxLayerBytes: options.maxLayerBytes, maxEntries: options.maxLayerEntries };
    this.#layers = new Layers(limits, { store: modules.store, log: modules.log, workers: this.#workers });
    this.#claims = new LayerClaims(options, { mounter: modules.layerMounter });
    this.#context = { pinnedImages: options.pinnedImages, blobPath: (diffId) => this.#layers.blobPath(diffId) };
  }

  async open(): Promise<void> {
    await this.#layers.open();
    await this.#claims.open();
    for (const { id, value } of await this.#store.list("image")) {
      const image = readImage(id, value, this.#context);
      if (image?.parsed.diffIds.every((diffId) => this.#layers.has(diffId))) {
        this.#images.set(image.id, image);
        continue;
      }
      this.#log.warn("image dropped: its record or a layer is missing or damaged; pull it again", { image: id });
      await this.#store.write([{ op: "delete", kind: "image", id }]);
    }
  }

  async pull(request: PullRequest, { signal }: { readonly signal: AbortSignal }): Promise<string> {
    this.#checkOpen();
    const reference = parseReference(request.reference);
    const credentials = createHash("sha256")
      .update(JSON.stringify(request.credentials ?? null))
      .digest("hex");
    try {
      return await this.#pulls.run(`${formatReference(reference)} ${credentials}`, signal, (joined) =>
        this.#pull(reference, request, joined),
      );
    } catch (error) {
      if (signal.aborted) throw abortedError(signal);
      throw this.#closed ? closedError() : error;
    }
  }

  find(reference: string): Image | undefined {
    return findImage(this.#images, reference)?.shown;
  }

  list(): readonly Image[] {
    return [...this.#images.values()].filter((image) => !image.record.removed).map((image) => image.shown);
  }

  async remove(reference: string): Promise<void> {
    this.#checkOpen();
    await this.#change(async () => {
      const image = findImage(this.#images, reference);
      if (image === undefined) return;
      failpoint("image.remove.before");
      if (this.#recovered && !this.#claims.imageInUse(image.id)) await this.#forget(image.id);
      else await this.#save([[image.id, { ...image.record, tags: [], digests: [], removed: true }]]);
      failpoint("image.remove.after");
    });
    await this.#collect();
  }

  async fsUsage(): Promise<FilesystemUsage> {
    const { usedBytes, files } = this.#layers.usage();
    let configBytes = 0;
    for (const image of this.#images.values()) configBytes += image.record.config.length;
    return {
      timestampNs: nowNs(),
      mountpoint: this.#options.root,
      usedBytes: BigInt(usedBytes + configBytes),
      inodesUsed: BigInt(files),
    };
  }

  async mountLayers(imageId: string, owner: string, { signal }: { readonly signal: AbortSignal }): Promise<readonly string[]> {
    return this.#claims.mount(owner, this.#claimOf(imageId), this.#context.blobPath, { signal });
  }

  claimLayers(imageId: string, owner: string): readonly ImageLayer[] {
    const claim = this.#claimOf(imageId);
    this.#claims.claim(owner, claim);
    return uppermostFirst(claim.diffIds).map((diffId) => ({ diffId, blobPath: this.#context.blobPath(diffId) }));
  }

  async releaseLayers(owner: string): Promise<void> {
    this.#checkOpen();
    const imageId = this.#claims.release(owner);
    if (imageId !== undefined && this.#images.get(imageId)?.record.removed !== false) await this.#collect();
  }

  async recoverMounts(owners: ReadonlyMap<string, string>): Promise<void> {
    for (const [owner, imageId] of owners) {
      const image = this.#images.get(imageId as Digest);
      if (image === undefined) this.#log.warn("a container's image is gone", { container: owner, image: imageId });
      else this.#claims.claim(owner, { imageId: image.id, diffIds: image.parsed.diffIds });
    }
    this.#recovered = true;
    await this.#claims.sweep(() => false);
    await this.#collect();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#pulls[Symbol.asyncDispose]();
    await this.#changes[Symbol.asyncDispose]();
    await this.#claims[Symbol.asyncDispose]();
    await this.#layers[Symbol.asyncDispose]();
    await this.#workers[Symbol.asyncDispose]();
    await this.#transport[Symbol.asyncDispose]();
  }

  #claimOf(imageId: string): Claim {
    this.#checkOpen();
    const image = this.#images.get(imageId as Digest);
    if (image !== undefined) return { imageId: image.id, diffIds: image.parsed.diffIds };
    throw new ImageError({ code: "ERR_IMAGE_NOT_FOUND", reference: imageId }, `image ${imageId} is not on this node`);
  }

  async #pull(reference: Reference, request: PullRequest, signal: AbortSignal): Promise<string> {
    const startMs = performance.now();
    const endpoints = await endpointsOf(reference.domain, this.#options.registryConfigPath);
    const modules = { transport: this.#transport, tokens: this.#tokens };
    const repository = new Repository({ ...this.#options, reference, endpoints, credentials: request.credentials }, modules);
    const unchanged = await this.#unchanged(reference, repository, signal);
    if (unchanged !== undefined) return unchanged;
    const knownConfig = (id: Digest): string | undefined => this.#images.get(id)?.record.config;
    const image = await pullImage(repository, this.#layers, { ...this.#options, knownConfig, signal }, (pulled) =>
      this.#commit(reference, pulled),
    );
    this.#log.info("image pulled", {
      requestId: request.requestId,
      reference: formatReference(reference),
      image: image.id,
      sizeBytes: image.sizeBytes,
      durationMs: Math.round(performance.now() - startMs),
    });
    return image.id;
  }

  /** The image of a reference that is here and still means the same. The registry is asked all the same: it decides who may have it. */
  async #unchanged(reference: Reference, repository: Repository, signal: AbortSignal): Promise<Digest | undefined> {
    const name = formatReference(reference);
    if (findImage(this.#images, name) === undefined) return undefined;
    const digest = await repository.currentDigest({ signal });
    const image = findImage(this.#images, name);
    return digest !== undefined && image?.record.digests.includes(`${reference.repository}@${digest}`) ? image.id : undefined;
  }

  /** One transaction: the tag leaves the image that had it, and the new one has it. */
  #commit(reference: Reference, { id, manifestDigest, config, sizeBytes }: PulledImage): Promise<void> {
    return this.#change(async () => {
      const tag = reference.kind === "tag" ? formatReference(reference) : undefined;
      const before = this.#images.get(id)?.record;
      const changes: [Digest, ImageRecord][] = [];
      for (const other of this.#images.values()) {
        if (tag === undefined || other.id === id || !other.record.tags.includes(tag)) continue;
        changes.push([other.id, { ...other.record, tags: other.record.tags.filter((name) => name !== tag) }]);
      }
      const tags = [...(before?.tags ?? []), ...(tag === undefined ? [] : [tag])];
      const digests = [...(before?.digests ?? []), `${reference.repository}@${manifestDigest}`];
      changes.push([id, { tags, digests, sizeBytes, config, removed: false }]);
      failpoint("image.record.before");
      await this.#save(changes);
      failpoint("image.record.after");
    });
  }

  async #save(changes: readonly (readonly [Digest, ImageRecord])[]): Promise<void> {
    const held = changes.map(([id, record]) => holdImage(id, record, this.#context));
    await this.#store.write(held.map(({ id, record }): RecordWrite => ({ op: "put", kind: "image", id, value: record })));
    for (const image of held) this.#images.set(image.id, image);
  }

  async #forget(id: Digest): Promise<void> {
    const image = this.#images.get(id);
    // First from memory: nobody may claim it while the record goes.
    this.#images.delete(id);
    try {
      await this.#store.write([{ op: "delete", kind: "image", id }]);
    } catch (error) {
      if (image !== undefined) this.#images.set(id, image);
      throw error;
    }
  }

  /** Drops removed images that nobody uses any more, then the layers of no image. A failure costs space, not the call. */
  async #collect(): Promise<void> {
    if (!this.#recovered) return;
    try {
      await this.#change(async () => {
        for (const { id, record } of this.#images.values()) if (record.removed && !this.#claims.imageInUse(id)) await this.#forget(id);
      });
      await this.#claims.sweep((diffId) => this.#isNeeded(diffId));
      await this.#layers.collect((diffId) => this.#isNeeded(diffId));
    } catch (error) {
      if (!this.#closed) this.#log.warn("image content could not be deleted; it is tried again with the next removal", {}, error);
    }
  }

  #isNeeded(diffId: string): boolean {
    for (const image of this.#images.values()) if (image.parsed.diffIds.some((own) => own === diffId)) return true;
    return this.#claims.layerInUse(diffId);
  }

  #change<T>(task: () => Promise<T>): Promise<T> {
    return this.#changes.run("images", new AbortController().signal, task);
  }

  #checkOpen(): void {
    if (this.#closed) throw closedError();
  }
}

function closedError(): ImageError {
  return new ImageError({ code: "ERR_IMAGES_CLOSED" }, "the image store is closing");
}
