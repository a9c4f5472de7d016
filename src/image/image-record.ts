import { z } from "zod";

import type { Image } from "../runtime/ports.ts";
import { type Digest, isDigest } from "./digest.ts";
import { type ParsedConfig, parseImageConfig } from "./image-config.ts";

/** An image as it is stored. */
export interface ImageRecord {
  readonly tags: readonly string[];
  readonly digests: readonly string[];
  readonly sizeBytes: number;
  /** The config document, byte for byte: its digest is the image's id. */
  readonly config: string;
  /** Removed by reference while containers use it: it is not shown, and goes with the last of them. */
  readonly removed: boolean;
}

/** A record with all that is derived from it. */
export interface HeldImage {
  readonly id: Digest;
  readonly record: ImageRecord;
  readonly parsed: ParsedConfig;
  readonly shown: Image;
}

const schema = z.object({
  tags: z.array(z.string()),
  digests: z.array(z.string()),
  sizeBytes: z.number(),
  config: z.string(),
  removed: z.boolean(),
});

export interface RecordContext {
  readonly pinnedImages: readonly string[];
  readonly blobPath: (diffId: Digest) => string;
}

export function holdImage(id: Digest, record: ImageRecord, context: RecordContext): HeldImage {
  const parsed = parseImageConfig(record.config);
  const sorted = { ...record, tags: [...new Set(record.tags)].sort(), digests: [...new Set(record.digests)].sort() };
  const shown: Image = {
    id,
    repoTags: sorted.tags,
    repoDigests: sorted.digests,
    sizeBytes: record.sizeBytes,
    pinned: sorted.tags.some((tag) => context.pinnedImages.some((pattern) => matchesGlob(tag, pattern))),
    config: parsed.config,
    rawConfig: JSON.parse(record.config) as unknown,
    layers: parsed.diffIds.map((diffId) => ({ diffId, blobPath: context.blobPath(diffId) })),
  };
  return { id, record: sorted, parsed, shown };
}

/** Undefined for a record that cannot be read. */
export function readImage(id: string, value: unknown, context: RecordContext): HeldImage | undefined {
  const record = schema.safeParse(value);
  if (!isDigest(id) || !record.success) return undefined;
  try {
    return holdImage(id, record.data, context);
  } catch {
    return undefined;
  }
}

/** `*` is any text. */
function matchesGlob(text: string, pattern: string): boolean {
  return new RegExp(
    `^${pattern
      .split("*")
      .map((part) => RegExp.escape(part))
      .join(".*")}$`,
  ).test(text);
}
