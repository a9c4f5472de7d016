import { malformed, overLimit } from "../errors.ts";

/**
 * The on-disk format of EROFS, as far as we write it: uncompressed, 4 KiB blocks, extended inodes, inline xattrs. Facts from the
 * kernel's fs/erofs/erofs_fs.h. All numbers are little endian.
 */
export const BLOCK = 4096;
/** Inode numbers count slots of this size from the start of the metadata area. */
export const SLOT = 32;
export const INODE_SIZE = 64;
const SUPER_OFFSET = 1024;
const MAGIC = 0xe0f5e1e2;
const COMPAT_CHECKSUM = 1;
const COMPAT_MTIME = 2;
const DIRENT_SIZE = 12;
const XATTR_HEADER_SIZE = 12;

/** How an inode's data is stored. */
export const layout = { plain: 0, inline: 2 } as const;

export const fileMode = {
  fifo: 0o010000,
  char: 0o020000,
  directory: 0o040000,
  block: 0o060000,
  file: 0o100000,
  symlink: 0o120000,
} as const;

/** Dirent types, by the format bits of a mode. */
const direntTypes: ReadonlyMap<number, number> = new Map([
  [fileMode.file, 1],
  [fileMode.directory, 2],
  [fileMode.char, 3],
  [fileMode.block, 4],
  [fileMode.fifo, 5],
  [fileMode.symlink, 7],
]);

const xattrPrefixes: readonly (readonly [string, number])[] = [
  ["system.posix_acl_access", 2],
  ["system.posix_acl_default", 3],
  ["user.", 1],
  ["trusted.", 4],
  ["security.", 6],
];

export interface Superblock {
  readonly rootNid: number;
  readonly inodeCount: number;
  readonly blockCount: number;
  /** First block of the metadata area. */
  readonly metaBlock: number;
  readonly uuid: Buffer;
}

/** The whole first block, checksum included. */
export function encodeSuperblock(superblock: Superblock): Buffer {
  const block = Buffer.alloc(BLOCK);
  const at = SUPER_OFFSET;
  block.writeUInt32LE(MAGIC, at);
  block.writeUInt32LE(COMPAT_CHECKSUM | COMPAT_MTIME, at + 8);
  block.writeUInt8(Math.log2(BLOCK), at + 12);
  block.writeUInt16LE(superblock.rootNid, at + 14);
  block.writeBigUInt64LE(BigInt(superblock.inodeCount), at + 16);
  block.writeUInt32LE(superblock.blockCount, at + 36);
  block.writeUInt32LE(superblock.metaBlock, at + 40);
  superblock.uuid.copy(block, at + 48, 0, 16);
  block.writeUInt32LE(crc32c(block.subarray(SUPER_OFFSET)), at + 4);
  return block;
}

export interface InodeFields {
  readonly layout: number;
  /** With the format bits. */
  readonly mode: number;
  readonly sizeBytes: number;
  /** First block of the data, or the encoded device number. */
  readonly union: number;
  readonly serial: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  readonly mtimeNs: number;
  readonly nlink: number;
  /** What `encodeXattrs` answered; empty for none. */
  readonly xattrs: Buffer;
}

/** The inode with its xattrs behind it. */
export function encodeInode(inode: InodeFields): Buffer {
  const bytes = Buffer.alloc(INODE_SIZE + inode.xattrs.length);
  bytes.writeUInt16LE(1 | (inode.layout << 1), 0);
  bytes.writeUInt16LE(inode.xattrs.length === 0 ? 0 : 1 + (inode.xattrs.length - XATTR_HEADER_SIZE) / 4, 2);
  bytes.writeUInt16LE(inode.mode, 4);
  bytes.writeBigUInt64LE(BigInt(inode.sizeBytes), 8);
  bytes.writeUInt32LE(inode.union, 16);
  bytes.writeUInt32LE(inode.serial, 20);
  bytes.writeUInt32LE(inode.uid, 24);
  bytes.writeUInt32LE(inode.gid, 28);
  bytes.writeBigInt64LE(BigInt(inode.mtimeSeconds), 32);
  bytes.writeUInt32LE(inode.mtimeNs, 40);
  bytes.writeUInt32LE(inode.nlink, 44);
  inode.xattrs.copy(bytes, INODE_SIZE);
  return bytes;
}

/** Header and entries, sorted by name so that the same layer gives the same bytes. Names and values are Latin-1. */
export function encodeXattrs(path: string, xattrs: ReadonlyMap<string, string>): Buffer {
  if (xattrs.size === 0) return Buffer.alloc(0);
  const parts = [Buffer.alloc(XATTR_HEADER_SIZE)];
  for (const [name, value] of [...xattrs].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const prefix = xattrPrefixes.find(([text]) => name.startsWith(text));
    if (prefix === undefined)
      throw malformed(`${path}: the extended attribute ${JSON.stringify(name)} is in no namespace that can be stored`);
    const suffix = name.slice(prefix[0].length);
    if (suffix.length > 255 || value.length > 0xffff) throw overLimit("xattr size", `${path}: the extended attribute ${name} is too large`);
    const entry = Buffer.alloc(Math.ceil((4 + suffix.length + value.length) / 4) * 4);
    entry.writeUInt8(suffix.length, 0);
    entry.writeUInt8(prefix[1], 1);
    entry.writeUInt16LE(value.length, 2);
    entry.write(suffix, 4, "latin1");
    entry.write(value, 4 + suffix.length, "latin1");
    parts.push(entry);
  }
  const bytes = Buffer.concat(parts);
  if (bytes.length > XATTR_HEADER_SIZE + 4 * 0xfffe)
    throw overLimit("xattr size", `${path}: the extended attributes are too large together`);
  return bytes;
}

export interface Dirent {
  /** Latin-1. */
  readonly name: string;
  readonly nid: number;
  readonly mode: number;
}

/** Splits sorted names into the blocks they fill; answers the size of the directory in bytes. */
export function directorySize(names: readonly string[]): number {
  const blocks = blocksOf(names);
  const last = blocks.at(-1);
  if (last === undefined) return 0;
  return (blocks.length - 1) * BLOCK + last.sizeBytes;
}

/** `directorySize` bytes. `dirents` are sorted by the bytes of their names, `.` and `..` among them. */
export function encodeDirectory(dirents: readonly Dirent[]): Buffer {
  const blocks = blocksOf(dirents.map((dirent) => dirent.name));
  const last = blocks.at(-1);
  const bytes = Buffer.alloc(last === undefined ? 0 : (blocks.length - 1) * BLOCK + last.sizeBytes);
  blocks.forEach((block, index) => {
    const base = index * BLOCK;
    let nameOffset = block.count * DIRENT_SIZE;
    for (let at = 0; at < block.count; at++) {
      const dirent = dirents[block.first + at];
      if (dirent === undefined) break;
      const slot = base + at * DIRENT_SIZE;
      bytes.writeBigUInt64LE(BigInt(dirent.nid), slot);
      bytes.writeUInt16LE(nameOffset, slot + 8);
      bytes.writeUInt8(direntTypes.get(dirent.mode & 0o170000) ?? 0, slot + 10);
      nameOffset += bytes.write(dirent.name, base + nameOffset, "latin1");
    }
  });
  return bytes;
}

interface DirectoryBlock {
  readonly first: number;
  count: number;
  sizeBytes: number;
}

function blocksOf(names: readonly string[]): readonly DirectoryBlock[] {
  const blocks: DirectoryBlock[] = [];
  let current: DirectoryBlock | undefined;
  names.forEach((name, index) => {
    const need = DIRENT_SIZE + name.length;
    if (current === undefined || current.sizeBytes + need > BLOCK) {
      current = { first: index, count: 0, sizeBytes: 0 };
      blocks.push(current);
    }
    current.count++;
    current.sizeBytes += need;
  });
  return blocks;
}

/** The kernel's 32-bit device number: 12 bits of major, 20 of minor. */
export function encodeDevice(path: string, major: number, minor: number): number {
  if (major < 0 || major > 0xfff || minor < 0 || minor > 0xfffff)
    throw malformed(`${path}: device number ${major}:${minor} is out of range`);
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

const crcTable = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = (value & 1) === 0 ? value >>> 1 : (value >>> 1) ^ 0x82f63b78;
  return value >>> 0;
});

/** CRC-32C as the kernel computes it: starts with all ones, not inverted at the end. */
export function crc32c(data: Buffer): number {
  let crc = 0xffff_ffff;
  for (const byte of data) crc = ((crcTable[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8)) >>> 0;
  return crc;
}
