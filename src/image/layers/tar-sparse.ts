import { malformed, overLimit } from "../errors.ts";
import { number, type TarHeader } from "./tar-header.ts";
import { type PaxRecords, paxNumber } from "./tar-pax.ts";

/** One stretch of data in a sparse file; what lies between stretches is a hole. */
export interface SparseExtent {
  readonly offset: number;
  readonly sizeBytes: number;
}

const MAX_EXTENTS = 1_000_000;

/** Old GNU format: up to four extents in the header block. Answers whether blocks with more follow. */
export function gnuExtents(header: TarHeader): { readonly extents: SparseExtent[]; readonly more: boolean; readonly realSize: number } {
  return {
    extents: entriesOf(header.block, 386, 4),
    more: header.block[482] !== 0,
    realSize: number(header.block, 483, 12, "sparse size"),
  };
}

/** A continuation block of the old GNU format. */
export function gnuExtension(block: Buffer): { readonly extents: SparseExtent[]; readonly more: boolean } {
  return { extents: entriesOf(block, 0, 21), more: block[504] !== 0 };
}

function entriesOf(block: Buffer, start: number, count: number): SparseExtent[] {
  const extents: SparseExtent[] = [];
  for (let at = start; at < start + count * 24; at += 24) {
    if (block[at] === 0) break;
    extents.push({ offset: number(block, at, 12, "sparse offset"), sizeBytes: number(block, at + 12, 12, "sparse size") });
  }
  return extents;
}

/** PAX formats 0.0 and 0.1, whose map is in the records; undefined when there is none. */
export function paxExtents(pax: PaxRecords): SparseExtent[] | undefined {
  const map = pax.values.get("GNU.sparse.map");
  if (map !== undefined && map !== "") return pairUp(map.split(",").map((item) => paxNumber(item, "GNU.sparse.map")));
  if (pax.sparsePairs.length > 0) return pairUp(pax.sparsePairs);
  return pax.values.has("GNU.sparse.size") && !pax.values.has("GNU.sparse.major") ? [] : undefined;
}

/**
 * The map of PAX format 1.0, which stands before the data: decimal lines (count, then offset and size of each), padded to a block.
 * Feed it the file's data until it answers with the map and the bytes it took.
 */
export class SparseMapReader {
  readonly #numbers: number[] = [];
  #digits = "";
  #wanted = 1;

  /** Takes from one whole tar block; answers the map when it is complete, and then the rest of the block is padding. */
  push(block: Buffer): SparseExtent[] | undefined {
    for (const byte of block) {
      if (byte >= 0x30 && byte <= 0x39 && this.#digits.length < 16) {
        this.#digits += String.fromCharCode(byte);
        continue;
      }
      if (byte !== 0x0a || this.#digits === "") throw malformed("a sparse map is malformed");
      if (this.#accept(Number(this.#digits))) return pairUp(this.#numbers);
      this.#digits = "";
    }
    return undefined;
  }

  #accept(value: number): boolean {
    if (this.#wanted === 1) {
      if (value > MAX_EXTENTS) throw overLimit("sparse extents", `a sparse map has ${value} extents, more than ${MAX_EXTENTS}`);
      this.#wanted = 1 + 2 * value;
    } else {
      this.#numbers.push(value);
    }
    return this.#numbers.length + 1 === this.#wanted;
  }
}

/** Extents in order and inside the file, their sum what the archive holds. */
export function checkExtents(name: string, extents: readonly SparseExtent[], realSize: number, storedSize: number): void {
  if (extents.length > MAX_EXTENTS) throw overLimit("sparse extents", `${name}: more than ${MAX_EXTENTS} sparse extents`);
  let end = 0;
  let stored = 0;
  for (const extent of extents) {
    if (extent.offset < end || extent.sizeBytes < 0) throw malformed(`${name}: the sparse map is not in order`);
    end = extent.offset + extent.sizeBytes;
    stored += extent.sizeBytes;
  }
  if (end > realSize || stored !== storedSize) throw malformed(`${name}: the sparse map does not fit the size of the file`);
}

function pairUp(numbers: readonly number[]): SparseExtent[] {
  if (numbers.length % 2 !== 0) throw malformed("a sparse map has an offset without a size");
  const extents: SparseExtent[] = [];
  for (let at = 0; at < numbers.length; at += 2) extents.push({ offset: numbers[at] ?? 0, sizeBytes: numbers[at + 1] ?? 0 });
  return extents;
}
