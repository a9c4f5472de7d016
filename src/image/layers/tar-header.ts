import { malformed } from "../errors.ts";

/** One 512-byte header block. Text is Latin-1: one character per byte, so that names of any encoding survive. */
export interface TarHeader {
  readonly name: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  /** Whole seconds. */
  readonly mtime: number;
  readonly typeflag: string;
  readonly linkname: string;
  readonly major: number;
  readonly minor: number;
  /** The block itself, for what only one typeflag needs. */
  readonly block: Buffer;
}

export const TAR_BLOCK = 512;

/** Undefined for the block of zeros that ends an archive. */
export function parseHeader(block: Buffer): TarHeader | undefined {
  if (!checksumHolds(block)) {
    if (block.every((byte) => byte === 0)) return undefined;
    throw malformed("a tar header has a wrong checksum");
  }
  const name = text(block, 0, 100);
  const prefix = prefixOf(block);
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    mode: number(block, 100, 8, "mode"),
    uid: number(block, 108, 8, "uid"),
    gid: number(block, 116, 8, "gid"),
    sizeBytes: number(block, 124, 12, "size"),
    mtime: number(block, 136, 12, "mtime"),
    typeflag: block[156] === 0 ? "0" : String.fromCharCode(block[156] ?? 0),
    linkname: text(block, 157, 100),
    major: number(block, 329, 8, "device number"),
    minor: number(block, 337, 8, "device number"),
    block,
  };
}

/** Bytes up to the first NUL. */
function text(block: Buffer, offset: number, length: number): string {
  const end = block.indexOf(0, offset);
  return block.toString("latin1", offset, end === -1 || end > offset + length ? offset + length : end);
}

/** Only POSIX headers have a prefix; GNU keeps times there, and star ends it early with times behind it. */
function prefixOf(block: Buffer): string {
  if (block.toString("latin1", 257, 263) !== "ustar\0") return "";
  return text(block, 345, block.toString("latin1", 508, 512) === "tar\0" ? 131 : 155);
}

/** An octal field, or base-256 (two's complement, big endian) where the first bit is set. */
export function number(block: Buffer, offset: number, length: number, field: string): number {
  const first = block[offset] ?? 0;
  if ((first & 0x80) !== 0) return base256(block.subarray(offset, offset + length), field);
  const digits = block.toString("latin1", offset, offset + length).replace(/^[ \0]+|[ \0].*$/gs, "");
  if (digits === "") return 0;
  if (!/^[0-7]+$/.test(digits)) throw malformed(`the ${field} in a tar header is not a number`);
  return Number.parseInt(digits, 8);
}

function base256(bytes: Buffer, field: string): number {
  let value = BigInt((bytes[0] ?? 0) & 0x7f);
  for (const byte of bytes.subarray(1)) value = (value << 8n) | BigInt(byte);
  const bits = bytes.length * 8 - 1;
  if (value >> BigInt(bits - 1) === 1n) value -= 1n << BigInt(bits);
  const plain = Number(value);
  if (!Number.isSafeInteger(plain)) throw malformed(`the ${field} in a tar header is out of range`);
  return plain;
}

/** Sum of all bytes with the checksum field as blanks; some old writers summed signed bytes. */
function checksumHolds(block: Buffer): boolean {
  const wanted = Number.parseInt(block.toString("latin1", 148, 156).replace(/^[ \0]+|[ \0].*$/gs, ""), 8);
  let unsigned = 8 * 32;
  let high = 0;
  for (let at = 0; at < TAR_BLOCK; at++) {
    if (at >= 148 && at < 156) continue;
    const byte = block[at] ?? 0;
    unsigned += byte;
    if (byte > 127) high++;
  }
  return wanted === unsigned || wanted === unsigned - 256 * high;
}
