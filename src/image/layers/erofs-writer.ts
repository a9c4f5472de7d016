import { overLimit } from "../errors.ts";
import type { BlobFile } from "./blob-file.ts";
import {
  BLOCK,
  directorySize,
  encodeDevice,
  encodeDirectory,
  encodeInode,
  encodeSuperblock,
  encodeXattrs,
  fileMode,
  INODE_SIZE,
  layout,
  SLOT,
} from "./erofs-format.ts";
import { isDirectory, type LayerDirectory, type LayerNode } from "./layer-tree.ts";

/** Guests map a blob as persistent memory, in units of this size. */
const BLOB_ALIGNMENT = 2 << 20;
const MAX_BLOCKS = 2 ** 32 - 1;

/** An inode on its way to the disk. */
interface Placed {
  readonly node: LayerNode;
  readonly path: string;
  readonly xattrs: Buffer;
  /** Bytes of a directory or symlink; a file's are in the blob already. */
  readonly bodySize: number;
  readonly inline: boolean;
  /** In bytes, from the start of the metadata area. */
  readonly offset: number;
  /** Of a directory. */
  readonly parent: LayerNode;
  /** First block of the body, counted from the first one behind the inodes. */
  readonly bodyBlock: number;
}

/**
 * Writes one EROFS image front to back: a block kept for the superblock, the data of files as it comes, then inodes, then directories.
 *
 * Files are whole blocks (`plain`), never tails packed beside inodes: only such files can be mapped (DAX). Symlinks and small
 * directories have no pages to map and do go inline, which saves a block each.
 */
export class ErofsWriter {
  readonly #blob: BlobFile;

  constructor(blob: BlobFile) {
    this.#blob = blob;
    blob.skip(BLOCK);
  }

  beginFile(node: LayerNode): void {
    this.#blob.align(BLOCK);
    node.dataBlock = blockNumber(this.#blob.position);
  }

  data(bytes: Buffer): void {
    this.#blob.append(bytes);
  }

  hole(sizeBytes: number): void {
    this.#blob.skip(sizeBytes);
  }

  /** Metadata, superblock, padding, sync. Answers the size of the blob. `uuid` has 16 bytes. */
  finish(root: LayerDirectory, uuid: Buffer): number {
    this.#blob.align(BLOCK);
    const metaBlock = blockNumber(this.#blob.position);
    const { placed, inodeBytes, nids } = place(root);
    const bodyBase = metaBlock + Math.ceil(inodeBytes / BLOCK);
    const base = this.#blob.position;
    placed.forEach((inode, index) => {
      this.#blob.skip(base + inode.offset - this.#blob.position);
      const body = inode.inline ? bodyOf(inode, nids) : undefined;
      const union = unionOf(inode, bodyBase);
      this.#blob.append(encodeInode(fieldsOf(inode, union, index + 1)));
      if (body !== undefined) this.#blob.append(body);
    });
    this.#blob.align(BLOCK);
    for (const inode of placed) {
      if (inode.inline || inode.bodySize === 0) continue;
      this.#blob.append(bodyOf(inode, nids));
      this.#blob.align(BLOCK);
    }
    const rootNid = nids.get(root) ?? 0;
    const blockCount = blockNumber(this.#blob.position);
    const sizeBytes = Math.ceil(this.#blob.position / BLOB_ALIGNMENT) * BLOB_ALIGNMENT;
    this.#blob.overwriteStart(encodeSuperblock({ rootNid, inodeCount: placed.length, blockCount, metaBlock, uuid }));
    this.#blob.finish(sizeBytes);
    return sizeBytes;
  }
}

/** Gives every inode its place, the root first: its number has only 16 bits. */
function place(root: LayerDirectory): { placed: readonly Placed[]; inodeBytes: number; nids: ReadonlyMap<LayerNode, number> } {
  const placed: Placed[] = [];
  const nids = new Map<LayerNode, number>();
  // Number 0 would be an inode number that readdir's users take for "deleted".
  let offset = INODE_SIZE;
  let bodyBlock = 0;
  const waiting: { node: LayerNode; path: string; parent: LayerNode }[] = [{ node: root, path: "", parent: root }];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { node, path, parent } = next;
    if (nids.has(node)) continue;
    const xattrs = node.xattrs === undefined ? Buffer.alloc(0) : encodeXattrs(path, node.xattrs);
    const bodySize = bodySizeOf(node);
    const total = INODE_SIZE + xattrs.length + bodySize;
    const inline = bodySize > 0 && total <= BLOCK;
    // Inline data may not cross a block, nor do we let an inode.
    if (inline && (offset % BLOCK) + total > BLOCK) offset = Math.ceil(offset / BLOCK) * BLOCK;
    nids.set(node, offset / SLOT);
    placed.push({ node, path, xattrs, bodySize, inline, offset, parent, bodyBlock });
    offset = Math.ceil((offset + INODE_SIZE + xattrs.length + (inline ? bodySize : 0)) / INODE_SIZE) * INODE_SIZE;
    if (!inline) bodyBlock += Math.ceil(bodySize / BLOCK);
    if (!isDirectory(node)) continue;
    for (const name of sortedNames(node).reverse()) {
      const child = node.children.get(name);
      if (child !== undefined) waiting.push({ node: child, path: `${path}/${name}`, parent: node });
    }
  }
  return { placed, inodeBytes: offset, nids };
}

function sortedNames(directory: LayerDirectory): string[] {
  // The default order is by UTF-16 units, which for Latin-1 text is the order of bytes.
  return [...directory.children.keys()].sort();
}

function bodySizeOf(node: LayerNode): number {
  if (isDirectory(node)) return directorySize([".", "..", ...node.children.keys()].sort());
  return node.linkTarget.length;
}

function bodyOf({ node, parent }: Placed, nids: ReadonlyMap<LayerNode, number>): Buffer {
  if (!isDirectory(node)) return Buffer.from(node.linkTarget, "latin1");
  const entries: [string, LayerNode][] = [[".", node], ["..", parent], ...node.children];
  entries.sort(([a], [b]) => (a < b ? -1 : 1));
  return encodeDirectory(entries.map(([name, child]) => ({ name, nid: nids.get(child) ?? 0, mode: child.mode })));
}

function unionOf(inode: Placed, bodyBase: number): number {
  const { node } = inode;
  switch (node.mode & 0o170000) {
    case fileMode.file:
      return node.dataBlock;
    case fileMode.char:
    case fileMode.block:
      return encodeDevice(inode.path, node.major, node.minor);
    default:
      return inode.inline || inode.bodySize === 0 ? 0 : bodyBase + inode.bodyBlock;
  }
}

function fieldsOf(inode: Placed, union: number, serial: number) {
  const { node } = inode;
  const isFile = (node.mode & 0o170000) === fileMode.file;
  return {
    layout: inode.inline ? layout.inline : layout.plain,
    mode: node.mode,
    sizeBytes: isFile ? node.sizeBytes : inode.bodySize,
    union,
    serial,
    uid: node.uid,
    gid: node.gid,
    mtimeSeconds: node.mtimeSeconds,
    mtimeNs: node.mtimeNs,
    nlink: node.nlink,
    xattrs: inode.xattrs,
  };
}

function blockNumber(position: number): number {
  const block = Math.ceil(position / BLOCK);
  if (block > MAX_BLOCKS) throw overLimit("size", "it needs more than 2^32 blocks of 4 KiB");
  return block;
}
