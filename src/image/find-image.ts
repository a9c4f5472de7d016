import { resolvePrefix } from "../lib/ids.ts";
import { type Digest, isDigest } from "./digest.ts";
import { ImageError } from "./errors.ts";
import type { HeldImage } from "./image-record.ts";
import { formatReference, parseReference, type ReferenceName } from "./reference.ts";

/** By id, tag, digest or familiar name, or a prefix of one id alone. Removed images are not found. Throws `ERR_AMBIGUOUS_REFERENCE`. */
export function findImage(images: ReadonlyMap<Digest, HeldImage>, text: string): HeldImage | undefined {
  const id = text.startsWith("sha256:") ? text : `sha256:${text}`;
  const exact = isDigest(id) ? shown(images.get(id)) : undefined;
  if (exact !== undefined) return exact;
  const name = nameOf(text);
  if (name !== undefined) {
    for (const image of images.values()) {
      if (!image.record.removed && (image.record.tags.includes(name) || image.record.digests.includes(name))) return image;
    }
  }
  return byPrefix(images, text.replace(/^sha256:/, ""));
}

function byPrefix(images: ReadonlyMap<Digest, HeldImage>, prefix: string): HeldImage | undefined {
  if (!/^[0-9a-f]{1,64}$/.test(prefix)) return undefined;
  const ids = [...images.values()].filter((image) => !image.record.removed).map((image) => image.id);
  const match = resolvePrefix(ids, `sha256:${prefix}`);
  switch (match.kind) {
    case "none":
      return undefined;
    case "found":
      return isDigest(match.id) ? images.get(match.id) : undefined;
    case "ambiguous":
      throw new ImageError(
        { code: "ERR_AMBIGUOUS_REFERENCE", reference: prefix },
        `image '${prefix}' is ambiguous: ${match.ids.join(" and ")} begin with it; give more characters`,
      );
  }
}

function shown(image: HeldImage | undefined): HeldImage | undefined {
  return image === undefined || image.record.removed ? undefined : image;
}

/** What is not a reference names nothing. */
function nameOf(text: string): ReferenceName | undefined {
  try {
    return formatReference(parseReference(text));
  } catch {
    return undefined;
  }
}
