import { createHash } from "node:crypto";

/** `sha256:` and 64 lower-case hex characters. */
export type Digest = string & { readonly __digest: true };

const pattern = /^sha256:[0-9a-f]{64}$/;

export function isDigest(text: string): text is Digest {
  return pattern.test(text);
}

export function sha256Of(data: Uint8Array | string): Digest {
  return asDigest(createHash("sha256").update(data).digest("hex"));
}

/** From the hex of a finished hash. */
export function asDigest(hex: string): Digest {
  const text = `sha256:${hex}`;
  if (!isDigest(text)) throw new Error(`not a digest: ${text}`);
  return text;
}

/** The 64 hex characters. */
export function hexOf(digest: Digest): string {
  return digest.slice("sha256:".length);
}
