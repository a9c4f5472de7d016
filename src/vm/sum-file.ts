import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";

/** SHA-256 of a file's first bytes, in hex. */
export async function sumFile(file: string, lengthBytes: number, options: { readonly signal: AbortSignal }): Promise<string> {
  const hash = createHash("sha256");
  // Reading is what takes the time: few large pieces.
  await pipeline(createReadStream(file, { end: lengthBytes - 1, highWaterMark: 1 << 20 }), hash, options);
  return hash.digest("hex");
}
