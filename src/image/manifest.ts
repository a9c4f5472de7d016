import { z } from "zod";

import { type Digest, isDigest } from "./digest.ts";
import { ImageError } from "./errors.ts";

export const DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json";
export const DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json";
export const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
export const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
export const MANIFEST_TYPES = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST] as const;

const configTypes: readonly string[] = ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/** With or without compression, and the "foreign" ones that a registry may still serve. The bytes tell the compression. */
const layerTypePattern =
  /^application\/vnd\.(?:oci\.image\.layer(?:\.nondistributable)?\.v1\.tar(?:\+gzip|\+zstd)?|docker\.image\.rootfs(?:\.foreign)?\.diff\.tar(?:\.gzip|\.zstd)?)$/;

/** What images are chosen for: names as in the OCI image index. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  /** `v8`, `v7`, …; empty for any. */
  readonly variant: string;
}

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
}

export type Manifest =
  | { readonly kind: "index"; readonly manifests: readonly (Descriptor & { readonly platform: Platform | undefined })[] }
  | { readonly kind: "image"; readonly config: Descriptor; readonly layers: readonly Descriptor[] };

const descriptorSchema = z.object({
  mediaType: z.string(),
  digest: z.string().refine(isDigest, "must be a sha256 digest"),
  size: z.number().int().nonnegative(),
});
const platformSchema = z.object({ os: z.string(), architecture: z.string(), variant: z.string().optional() });
const documentSchema = z.object({
  schemaVersion: z.number().optional(),
  mediaType: z.string().optional(),
  config: descriptorSchema.optional(),
  layers: z.array(descriptorSchema).max(10_000).optional(),
  manifests: z
    .array(descriptorSchema.extend({ platform: platformSchema.optional() }))
    .max(10_000)
    .optional(),
});

/** Reads a manifest or an index. `contentType` is what the registry called it, for documents that do not say themselves. */
export function parseManifest(body: Buffer, contentType: string): Manifest {
  const document = decode(body);
  const mediaType = document.mediaType ?? contentType.replace(/;.*$/, "").trim();
  if (document.schemaVersion === 1 || mediaType.startsWith("application/vnd.docker.distribution.manifest.v1")) {
    throw unsupported(mediaType, "is Docker schema 1; push the image again with a current tool");
  }
  const { config, layers, manifests } = document;
  // One document that could be read as either lets two programs see two different images under one digest.
  if (manifests !== undefined && (layers !== undefined || config !== undefined)) throw manifestError("it is both an image and an index");
  if (manifests !== undefined) {
    if (mediaType === OCI_MANIFEST || mediaType === DOCKER_MANIFEST) throw manifestError(`it is an index, but calls itself ${mediaType}`);
    return { kind: "index", manifests: manifests.map((item) => ({ ...descriptorOf(item), platform: platformOf(item.platform) })) };
  }
  if (config === undefined || layers === undefined)
    throw manifestError(`it has neither manifests nor config and layers (${mediaType || "no media type"})`);
  if (mediaType === OCI_INDEX || mediaType === DOCKER_LIST) throw manifestError(`it is an image, but calls itself ${mediaType}`);
  return { kind: "image", config: descriptorOf(config), layers: layers.map(descriptorOf) };
}

/** Refuses what is not a runnable image: artifacts, encrypted layers. */
export function checkRunnable(manifest: Extract<Manifest, { kind: "image" }>): void {
  const { config, layers } = manifest;
  if (!configTypes.includes(config.mediaType))
    throw unsupported(config.mediaType, "is the config of an artifact, not of a container image");
  const wrong = layers.find((layer) => !layerTypePattern.test(layer.mediaType));
  if (wrong !== undefined) {
    throw unsupported(
      wrong.mediaType,
      wrong.mediaType.includes("encrypted") ? "is an encrypted layer; they are not supported" : "is not a layer we can read",
    );
  }
}

/** The first entry that fits, in the index's order; one of the exact variant before one of any. */
export function choosePlatform(index: Extract<Manifest, { kind: "index" }>, wanted: Platform): Descriptor {
  const fitting = index.manifests.filter((item) => item.platform !== undefined && platformFits(item.platform, wanted));
  const exact = fitting.find((item) => variantOf(item.platform ?? wanted) === variantOf(wanted));
  const chosen = exact ?? fitting[0];
  if (chosen !== undefined) return chosen;
  const offered = index.manifests.map((item) => (item.platform === undefined ? "?" : formatPlatform(item.platform)));
  const platform = formatPlatform(wanted);
  throw new ImageError(
    { code: "ERR_NO_MATCHING_PLATFORM", platform },
    `the image has no manifest for ${platform}; it offers ${offered.slice(0, 20).join(", ") || "nothing"}`,
  );
}

/** Whether something built for `offered` runs on `wanted`: same system, and a variant that is not newer. */
export function platformFits(offered: Platform, wanted: Platform): boolean {
  if (offered.os !== wanted.os || offered.architecture !== wanted.architecture) return false;
  if (wanted.variant === "" || offered.variant === "") return true;
  return Number(offered.variant.replace(/\D/g, "")) <= Number(wanted.variant.replace(/\D/g, ""));
}

export function formatPlatform({ os, architecture, variant }: Platform): string {
  return variant === "" ? `${os}/${architecture}` : `${os}/${architecture}/${variant}`;
}

/** `arm64` without a variant is `v8`: both are written. */
function variantOf({ architecture, variant }: Platform): string {
  return architecture === "arm64" && variant === "" ? "v8" : variant;
}

function decode(body: Buffer): z.infer<typeof documentSchema> {
  let json: unknown;
  try {
    json = JSON.parse(body.toString("utf8"));
  } catch (error) {
    throw manifestError("it is not JSON", error);
  }
  const result = documentSchema.safeParse(json);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw manifestError(`${issue?.path.join(".") ?? ""}: ${issue?.message ?? "is malformed"}`);
}

function descriptorOf(item: z.infer<typeof descriptorSchema>): Descriptor {
  if (!isDigest(item.digest)) throw manifestError(`digest ${String(item.digest)} is not sha256`);
  return { mediaType: item.mediaType, digest: item.digest, sizeBytes: item.size };
}

function platformOf(item: z.infer<typeof platformSchema> | undefined): Platform | undefined {
  return item === undefined ? undefined : { os: item.os, architecture: item.architecture, variant: item.variant ?? "" };
}

export function manifestError(problem: string, cause?: unknown): ImageError {
  return new ImageError({ code: "ERR_MANIFEST", problem }, `image manifest: ${problem}`, cause === undefined ? undefined : { cause });
}

function unsupported(mediaType: string, problem: string): ImageError {
  return new ImageError({ code: "ERR_UNSUPPORTED_MEDIA_TYPE", mediaType }, `media type ${mediaType} ${problem}`);
}
