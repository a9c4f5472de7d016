import { joinSignals } from "../lib/abort.ts";
import type { Digest } from "./digest.ts";
import { ImageError } from "./errors.ts";
import { parseImageConfig } from "./image-config.ts";
import type { Layers } from "./layers/layers.ts";
import {
  checkRunnable,
  choosePlatform,
  type Descriptor,
  formatPlatform,
  manifestError,
  type Platform,
  parseManifest,
  platformFits,
} from "./manifest.ts";
import type { Repository } from "./registry/registry.ts";

export interface PullOptions {
  /** The config document of an image that is here. */
  readonly knownConfig: (id: Digest) => string | undefined;
  readonly platform: Platform;
  readonly maxLayersAtOnce: number;
}

/** What a pull brought. */
export interface PulledImage {
  readonly id: Digest;
  /** Of the document the reference led to: the index, where there is one. */
  readonly manifestDigest: Digest;
  readonly config: string;
  readonly sizeBytes: number;
}

/** An image whose layers are known but not here yet. */
interface ResolvedImage extends PulledImage {
  readonly layers: readonly (Descriptor & { readonly diffId: Digest })[];
}

/** Reads manifest and config, then brings every missing layer. `commit` runs while the layers are still held. */
export async function pullImage(
  repository: Repository,
  layers: Layers,
  options: PullOptions & { readonly signal: AbortSignal },
  commit: (image: PulledImage) => Promise<void>,
): Promise<PulledImage> {
  const image = await resolveImage(repository, options);
  using _held = layers.hold(image.layers.map((layer) => layer.diffId));
  await fetchLayers(image, repository, layers, options);
  await commit(image);
  return image;
}

async function resolveImage(
  repository: Repository,
  { platform, signal, knownConfig }: PullOptions & { readonly signal: AbortSignal },
): Promise<ResolvedImage> {
  const top = await repository.manifest(undefined, { signal });
  let manifest = parseManifest(top.body, top.contentType);
  if (manifest.kind === "index") {
    const chosen = choosePlatform(manifest, platform);
    const inner = await repository.manifest(chosen.digest, { signal });
    manifest = parseManifest(inner.body, inner.contentType);
    if (manifest.kind === "index") throw manifestError("an index inside an index is not supported");
  }
  checkRunnable(manifest);
  const config = knownConfig(manifest.config.digest) ?? (await repository.document(manifest.config, { signal })).toString("utf8");
  const { diffIds, platform: builtFor } = parseImageConfig(config);
  if (builtFor !== undefined && !platformFits(builtFor, platform)) {
    throw new ImageError(
      { code: "ERR_NO_MATCHING_PLATFORM", platform: formatPlatform(platform) },
      `the image is built for ${formatPlatform(builtFor)}, this node runs ${formatPlatform(platform)}`,
    );
  }
  if (diffIds.length !== manifest.layers.length) {
    throw manifestError(`it has ${manifest.layers.length} layers, its config speaks of ${diffIds.length}`);
  }
  const layers = manifest.layers.map((layer, index) => ({ ...layer, diffId: diffIds[index] ?? layer.digest }));
  return {
    id: manifest.config.digest,
    manifestDigest: top.digest,
    config,
    sizeBytes: Buffer.byteLength(config) + layers.reduce((sum, layer) => sum + layer.sizeBytes, 0),
    layers,
  };
}

/** A few at a time, lowest first; the first failure stops the others. */
async function fetchLayers(
  image: ResolvedImage,
  repository: Repository,
  layers: Layers,
  options: PullOptions & { readonly signal: AbortSignal },
): Promise<void> {
  using scope = joinSignals(options.signal);
  const waiting = [...image.layers].reverse();
  let failure: { readonly error: unknown } | undefined;
  const lane = async (): Promise<void> => {
    for (let layer = waiting.pop(); layer !== undefined && failure === undefined; layer = waiting.pop()) {
      const descriptor = layer;
      try {
        await fetchLayer(descriptor, repository, layers, scope.signal);
      } catch (error) {
        failure ??= { error };
        scope.abort();
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(options.maxLayersAtOnce, waiting.length) }, lane));
  if (failure !== undefined) throw failure.error;
}

/** A mirror with damaged content must not stand in the way of the registry itself. */
async function fetchLayer(
  layer: Descriptor & { readonly diffId: Digest },
  repository: Repository,
  layers: Layers,
  signal: AbortSignal,
): Promise<void> {
  try {
    await layers.ensure(layer.diffId, layer, (until) => repository.blob(layer, { signal: until }), signal);
  } catch (error) {
    const origin = repository.withoutMirrors();
    if (!(error instanceof ImageError) || error.fact.code !== "ERR_DIGEST_MISMATCH" || origin === undefined) throw error;
    await layers.ensure(layer.diffId, layer, (until) => origin.blob(layer, { signal: until }), signal);
  }
}
