import { createHash } from "node:crypto";
import { gzipSync, zstdCompressSync } from "node:zlib";
import type { TarEntry } from "./tar.ts";
import { tar } from "./tar.ts";

/** What becomes of an image config's `config` object. */
export interface ImageSettings {
  readonly User?: string;
  readonly Env?: readonly string[];
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[];
  readonly WorkingDir?: string;
  readonly StopSignal?: string;
  readonly Volumes?: Readonly<Record<string, Record<string, never>>>;
  readonly Labels?: Readonly<Record<string, string>>;
}

export type LayerCompression = "gzip" | "zstd" | "none";

export interface LayerRecipe {
  readonly entries: readonly TarEntry[];
  readonly compression: LayerCompression;
}

/** Bytes under the name of their digest. */
export interface Blob {
  readonly digest: string;
  readonly bytes: Buffer;
}

/** An image ready to push. The same recipe gives the same digests. */
export interface BuiltImage {
  readonly mediaType: string;
  readonly manifest: Blob;
  /** The image id. */
  readonly config: Blob;
  readonly blobs: readonly Blob[];
  readonly diffIds: readonly string[];
}

const layerMediaTypes = {
  gzip: "application/vnd.oci.image.layer.v1.tar+gzip",
  zstd: "application/vnd.oci.image.layer.v1.tar+zstd",
  none: "application/vnd.oci.image.layer.v1.tar",
} as const;

export function buildImage(recipe: {
  readonly layers: readonly LayerRecipe[];
  readonly settings: ImageSettings;
  readonly architecture?: string;
}): BuiltImage {
  const layers = recipe.layers.map(builtLayer);
  const diffIds = layers.map((layer) => layer.diffId);
  const config = jsonBlob({
    created: "1970-01-01T00:00:00Z",
    architecture: recipe.architecture ?? (process.arch === "x64" ? "amd64" : process.arch),
    os: "linux",
    config: recipe.settings,
    rootfs: { type: "layers", diff_ids: diffIds },
    history: layers.map(() => ({ created: "1970-01-01T00:00:00Z" })),
  });
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const manifest = jsonBlob({
    schemaVersion: 2,
    mediaType,
    config: descriptor("application/vnd.oci.image.config.v1+json", config),
    layers: layers.map((layer) => descriptor(layer.mediaType, layer)),
  });
  return { mediaType, manifest, config, blobs: [config, ...layers], diffIds };
}

interface BuiltLayer extends Blob {
  readonly mediaType: string;
  readonly diffId: string;
}

/** Images share layers: each is packed once. */
const builtLayers = new WeakMap<LayerRecipe, BuiltLayer>();

function builtLayer(recipe: LayerRecipe): BuiltLayer {
  const known = builtLayers.get(recipe);
  if (known !== undefined) return known;
  const archive = tar(recipe.entries);
  const mediaType = layerMediaTypes[recipe.compression];
  const built = { mediaType, diffId: digestOf(archive), ...blob(compress(archive, recipe.compression)) };
  builtLayers.set(recipe, built);
  return built;
}

/** An index over images of several architectures. */
export function buildIndex(images: readonly { readonly image: BuiltImage; readonly architecture: string }[]): {
  readonly mediaType: string;
  readonly manifest: Blob;
} {
  const mediaType = "application/vnd.oci.image.index.v1+json";
  const manifests = images.map(({ image, architecture }) => ({
    ...descriptor(image.mediaType, image.manifest),
    platform: { architecture, os: "linux" },
  }));
  return { mediaType, manifest: jsonBlob({ schemaVersion: 2, mediaType, manifests }) };
}

export function digestOf(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

function compress(archive: Buffer, compression: LayerCompression): Buffer {
  switch (compression) {
    case "gzip":
      return gzipSync(archive, { level: 1 });
    case "zstd":
      return zstdCompressSync(archive);
    case "none":
      return archive;
  }
}

function descriptor(mediaType: string, of: Blob) {
  return { mediaType, digest: of.digest, size: of.bytes.length };
}

function jsonBlob(value: unknown): Blob {
  return blob(Buffer.from(JSON.stringify(value)));
}

function blob(bytes: Buffer): Blob {
  return { digest: digestOf(bytes), bytes };
}
