import type { BinaryWriter } from "@bufbuild/protobuf/wire";

/** What a message of a streaming list holds at most, unless one item alone is larger: far below every client's limit. */
const MAX_BATCH_BYTES = 1024 * 1024 - 1024;

/** Tag and length of an item within its message. */
const ITEM_OVERHEAD_BYTES = 6;

/** Cuts a list into the messages of a stream: each item once, in order; no message without an item. */
export function* inBatches<T>(
  items: readonly T[],
  codec: { encode(item: T): BinaryWriter },
  maxBytes: number = MAX_BATCH_BYTES,
): Generator<T[]> {
  let batch: T[] = [];
  let batchBytes = 0;
  for (const item of items) {
    const itemBytes = codec.encode(item).finish().byteLength + ITEM_OVERHEAD_BYTES;
    if (batch.length > 0 && batchBytes + itemBytes > maxBytes) {
      yield batch;
      batch = [];
      batchBytes = 0;
    }
    batch.push(item);
    batchBytes += itemBytes;
  }
  if (batch.length > 0) yield batch;
}
