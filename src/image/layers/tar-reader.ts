import { malformed, overLimit } from "../errors.ts";
import { describeEntry, type TarEntry } from "./tar-entry.ts";
import { parseHeader, TAR_BLOCK, type TarHeader } from "./tar-header.ts";
import { type PaxRecords, parsePax } from "./tar-pax.ts";
import { checkExtents, gnuExtension, gnuExtents, paxExtents, type SparseExtent, SparseMapReader } from "./tar-sparse.ts";

/** What an archive says, in order. `data` and `hole` belong to the last `entry`, and `endEntry` closes it. */
export interface TarSink {
  entry(entry: TarEntry): void;
  /** Valid until the call returns. */
  data(bytes: Buffer): void;
  hole(sizeBytes: number): void;
  endEntry(): void;
}

/** Pax headers and long names; the value others allow. */
const MAX_META_BYTES = 1 << 20;

type State =
  | { readonly phase: "header" }
  /** A block of zeros was read; a second one ends the archive. */
  | { readonly phase: "zero" }
  | { readonly phase: "meta"; readonly typeflag: string; readonly body: Buffer; filled: number }
  | { readonly phase: "gnu-sparse"; readonly header: TarHeader; readonly extents: SparseExtent[]; readonly realSize: number }
  | { readonly phase: "sparse-map"; readonly entry: TarEntry; readonly map: SparseMapReader; storedBytes: number }
  | {
      readonly phase: "data";
      remaining: number;
      readonly padding: number;
      readonly realSize: number;
      readonly extents: readonly SparseExtent[];
      extent: number;
      position: number;
    }
  | { readonly phase: "skip"; remaining: number }
  /** What follows the end belongs to the diff-id and to nothing else. */
  | { readonly phase: "end" };

/**
 * Reads a tar stream in whatever pieces it comes: ustar, pax, GNU long names, and the sparse formats of both. Feed it with `push`, then
 * call `finish`.
 */
export class TarReader {
  readonly #sink: TarSink;
  #state: State = { phase: "header" };
  readonly #block = Buffer.alloc(TAR_BLOCK);
  #blockFill = 0;
  #pax: PaxRecords | undefined;
  #longName: string | undefined;
  #longLink: string | undefined;

  constructor(sink: TarSink) {
    this.#sink = sink;
  }

  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      const state = this.#state;
      switch (state.phase) {
        case "end":
          return;
        case "skip":
          at += this.#skip(state, chunk.length - at);
          break;
        case "meta":
          at += this.#meta(state, chunk, at);
          break;
        case "data":
          at += this.#data(state, chunk, at);
          break;
        default:
          at += this.#gather(chunk, at);
      }
    }
  }

  /** Throws when the archive stops in the middle of something. The two blocks of zeros and the last padding may be missing: there are writers that leave them out. */
  finish(): void {
    const { phase } = this.#state;
    const pending = this.#pax !== undefined || this.#longName !== undefined || this.#longLink !== undefined;
    if (phase === "end" || phase === "skip" || ((phase === "header" || phase === "zero") && this.#blockFill === 0 && !pending)) return;
    throw malformed("the tar ends in the middle of an entry");
  }

  /** The states that work on whole blocks. */
  #gather(chunk: Buffer, at: number): number {
    const taken = Math.min(TAR_BLOCK - this.#blockFill, chunk.length - at);
    chunk.copy(this.#block, this.#blockFill, at, at + taken);
    this.#blockFill += taken;
    if (this.#blockFill < TAR_BLOCK) return taken;
    this.#blockFill = 0;
    this.#wholeBlock();
    return taken;
  }

  #wholeBlock(): void {
    const state = this.#state;
    switch (state.phase) {
      case "header":
      case "zero":
        return this.#header(state.phase === "zero");
      case "gnu-sparse": {
        const { extents, more } = gnuExtension(this.#block);
        state.extents.push(...extents);
        if (state.extents.length > 1_000_000) throw overLimit("sparse extents", "a file has more than a million sparse extents");
        if (!more) this.#begin(this.#describe(state.header, state.realSize), state.header.sizeBytes, state.extents);
        return;
      }
      case "sparse-map": {
        state.storedBytes -= TAR_BLOCK;
        if (state.storedBytes < 0) throw malformed(`${state.entry.path}: the sparse map is longer than the data`);
        const extents = state.map.push(this.#block);
        if (extents !== undefined) this.#begin(state.entry, state.storedBytes, extents);
        return;
      }
      default:
        throw new Error(`no block is gathered in phase ${state.phase}`);
    }
  }

  #header(afterZero: boolean): void {
    const header = parseHeader(Buffer.from(this.#block));
    if (header === undefined) {
      this.#state = { phase: afterZero ? "end" : "zero" };
      return;
    }
    if (afterZero) throw malformed("a tar header follows a block of zeros");
    if (header.sizeBytes < 0) throw malformed("a tar header has a negative size");
    switch (header.typeflag) {
      case "x":
      case "g":
      case "L":
      case "K":
        return this.#beginMeta(header);
      case "S": {
        const { extents, more, realSize } = gnuExtents(header);
        if (more) this.#state = { phase: "gnu-sparse", header, extents, realSize };
        else this.#begin(this.#describe(header, realSize), header.sizeBytes, extents);
        return;
      }
      default:
        return this.#beginPlain(header);
    }
  }

  #beginMeta(header: TarHeader): void {
    if (header.sizeBytes > MAX_META_BYTES) {
      throw overLimit("extended header", `an extended tar header has ${header.sizeBytes} bytes, more than ${MAX_META_BYTES}`);
    }
    this.#state = { phase: "meta", typeflag: header.typeflag, body: Buffer.alloc(roundUp(header.sizeBytes)), filled: 0 };
    if (header.sizeBytes === 0) this.#endMeta(header.typeflag, Buffer.alloc(0));
    else this.#metaSize = header.sizeBytes;
  }

  #metaSize = 0;

  #meta(state: Extract<State, { phase: "meta" }>, chunk: Buffer, at: number): number {
    const taken = Math.min(state.body.length - state.filled, chunk.length - at);
    chunk.copy(state.body, state.filled, at, at + taken);
    state.filled += taken;
    if (state.filled === state.body.length) this.#endMeta(state.typeflag, state.body.subarray(0, this.#metaSize));
    return taken;
  }

  #endMeta(typeflag: string, body: Buffer): void {
    this.#state = { phase: "header" };
    const end = body.indexOf(0);
    const name = body.toString("latin1", 0, end === -1 ? body.length : end);
    if (typeflag === "x") this.#pax = parsePax(body);
    else if (typeflag === "L") this.#longName = name;
    else if (typeflag === "K") this.#longLink = name;
    // A global header ("g") is read and dropped, as the other runtimes do: images must look the same everywhere.
  }

  #beginPlain(header: TarHeader): void {
    const pax = this.#pax;
    const entry = this.#describe(header, undefined);
    if (entry.type !== "file") return this.#begin(entry, 0, undefined);
    if (pax?.values.get("GNU.sparse.major") === "1") {
      this.#state = { phase: "sparse-map", entry, map: new SparseMapReader(), storedBytes: entry.storedBytes };
      return;
    }
    this.#begin(entry, entry.storedBytes, pax === undefined ? undefined : paxExtents(pax));
  }

  #describe(header: TarHeader, realSize: number | undefined): TarEntry {
    const entry = describeEntry(header, { pax: this.#pax, longName: this.#longName, longLink: this.#longLink, realSize });
    this.#pax = undefined;
    this.#longName = undefined;
    this.#longLink = undefined;
    return entry;
  }

  #begin(entry: TarEntry, storedBytes: number, extents: readonly SparseExtent[] | undefined): void {
    if (extents !== undefined) checkExtents(entry.path, extents, entry.sizeBytes, storedBytes);
    this.#sink.entry(entry);
    const state: State = {
      phase: "data",
      remaining: storedBytes,
      padding: roundUp(storedBytes) - storedBytes,
      realSize: entry.sizeBytes,
      extents: extents ?? [{ offset: 0, sizeBytes: storedBytes }],
      extent: 0,
      position: 0,
    };
    this.#state = state;
    if (storedBytes === 0) this.#endData(state);
  }

  #data(state: Extract<State, { phase: "data" }>, chunk: Buffer, start: number): number {
    const end = Math.min(chunk.length, start + state.remaining);
    let at = start;
    while (at < end) {
      const extent = state.extents[state.extent];
      if (extent === undefined) throw malformed("a sparse map ends before its data");
      if (state.position < extent.offset) {
        this.#sink.hole(extent.offset - state.position);
        state.position = extent.offset;
      }
      const taken = Math.min(extent.offset + extent.sizeBytes - state.position, end - at);
      if (taken > 0) this.#sink.data(chunk.subarray(at, at + taken));
      state.position += taken;
      at += taken;
      if (state.position === extent.offset + extent.sizeBytes) state.extent++;
    }
    state.remaining -= end - start;
    if (state.remaining === 0) this.#endData(state);
    return end - start;
  }

  #endData(state: Extract<State, { phase: "data" }>): void {
    if (state.position < state.realSize) this.#sink.hole(state.realSize - state.position);
    this.#sink.endEntry();
    this.#state = state.padding === 0 ? { phase: "header" } : { phase: "skip", remaining: state.padding };
  }

  #skip(state: Extract<State, { phase: "skip" }>, available: number): number {
    const taken = Math.min(state.remaining, available);
    state.remaining -= taken;
    if (state.remaining === 0) this.#state = { phase: "header" };
    return taken;
  }
}

function roundUp(sizeBytes: number): number {
  return Math.ceil(sizeBytes / TAR_BLOCK) * TAR_BLOCK;
}
