import { malformed, overLimit } from "../errors.ts";
import { fileMode } from "./erofs-format.ts";
import type { TarEntry } from "./tar-entry.ts";

/** What a layer holds under one or more names. */
export interface LayerNode {
  /** Format and permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  readonly mtimeNs: number;
  /** Undefined for none, which most nodes have. */
  xattrs: ReadonlyMap<string, string> | undefined;
  readonly major: number;
  readonly minor: number;
  /** Of a symlink. */
  readonly linkTarget: string;
  /** Of a file. */
  readonly sizeBytes: number;
  /** Of a file: first block of its data. */
  dataBlock: number;
  /** Number of names; of a directory 2 and its subdirectories. */
  nlink: number;
}

export interface LayerDirectory extends LayerNode {
  /** By name. */
  readonly children: Map<string, LayerNode>;
}

export interface LayerTreeOptions {
  /** Bound of what the tree may take in memory: about half a kilobyte each. */
  readonly maxEntries: number;
}

const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";
const OPAQUE_XATTR = "trusted.overlay.opaque";
/** The kernel's limit for symlinks in one path. */
const MAX_LINKS = 40;
const MAX_NAME_BYTES = 255;

export function isDirectory(node: LayerNode): node is LayerDirectory {
  return "children" in node;
}

/** Device 0/0 is overlayfs's sign for "nothing here, whatever lies below". */
function isWhiteout(node: LayerNode): boolean {
  return (node.mode & 0o170000) === fileMode.char && node.major === 0 && node.minor === 0;
}

/**
 * The tree that the entries of a layer make, in memory. Nothing of it ever touches the host's file system, so a hostile path has nowhere
 * to go: `..` above the root is refused, links are followed inside the tree alone.
 */
export class LayerTree {
  root: LayerDirectory = emptyDirectory();
  readonly #maxEntries: number;
  #entries = 0;

  constructor(options: LayerTreeOptions) {
    this.#maxEntries = options.maxEntries;
  }

  /** Puts an entry in its place, over what was there. Answers the node when it is a file that waits for its data. */
  add(entry: TarEntry): LayerNode | undefined {
    if (++this.#entries > this.#maxEntries) throw overLimit("entries", `more than ${this.#maxEntries} tar entries`);
    const parts = splitPath(entry.path);
    const name = parts.pop();
    if (name === undefined) {
      if (entry.type !== "directory") throw malformed(`the root directory is a ${entry.type}`);
      this.root = directoryFrom(entry, this.root);
      return undefined;
    }
    const parent = this.#directoryAt(parts, entry.path);
    if (name.startsWith(WHITEOUT)) {
      this.#addWhiteout(parent, name, entry);
      return undefined;
    }
    if (entry.type === "hardlink") {
      this.#addHardLink(parent, name, entry);
      return undefined;
    }
    const node = nodeFrom(entry, parent.children.get(name));
    this.#place(parent, name, node);
    return entry.type === "file" ? node : undefined;
  }

  #addHardLink(parent: LayerDirectory, name: string, entry: TarEntry): void {
    const parts = splitPath(entry.linkTarget);
    const last = parts.pop();
    const holder = last === undefined ? undefined : this.#directoryAt(parts, entry.linkTarget);
    const target = last === undefined ? undefined : holder?.children.get(last);
    if (target === undefined) throw malformed(`${entry.path}: its hard link target ${entry.linkTarget} is not in the layer before it`);
    if (isDirectory(target)) throw malformed(`${entry.path}: its hard link target ${entry.linkTarget} is a directory`);
    if (parent.children.get(name) === target) return;
    target.nlink++;
    this.#place(parent, name, target);
  }

  /** `.wh.NAME` hides NAME of lower layers; it does not undo a NAME of its own layer. */
  #addWhiteout(parent: LayerDirectory, name: string, entry: TarEntry): void {
    if (name === OPAQUE) return markOpaque(parent);
    // Bookkeeping of a union file system that is gone: `.wh..wh.aufs`, `.wh..wh.plnk`, `.wh..wh.orph`.
    if (name.startsWith(`${WHITEOUT}${WHITEOUT}`)) return;
    const hidden = name.slice(WHITEOUT.length);
    if (hidden === "" || hidden === "." || hidden === "..") throw malformed(`${entry.path}: a whiteout without a name`);
    const present = parent.children.get(hidden);
    if (present !== undefined) {
      if (isDirectory(present)) markOpaque(present);
      return;
    }
    const { uid, gid, mtimeSeconds, mtimeNs } = entry;
    const bare = { major: 0, minor: 0, linkTarget: "", sizeBytes: 0, dataBlock: 0, nlink: 1, xattrs: undefined };
    this.#place(parent, hidden, { ...bare, mode: fileMode.char, uid, gid, mtimeSeconds, mtimeNs });
  }

  #place(parent: LayerDirectory, name: string, node: LayerNode): void {
    const before = parent.children.get(name);
    if (before !== undefined && before !== node) {
      before.nlink--;
      if (isDirectory(before)) parent.nlink--;
      if (isDirectory(node) && isWhiteout(before)) markOpaque(node);
    }
    if (isDirectory(node)) parent.nlink++;
    parent.children.set(name, node);
  }

  /** The directory a path means, made where missing. Symlinks in it lead to where they would with this tree as `/`. */
  #directoryAt(parts: readonly string[], path: string): LayerDirectory {
    const trail: LayerDirectory[] = [this.root];
    const rest = [...parts].reverse();
    let links = 0;
    for (let part = rest.pop(); part !== undefined; part = rest.pop()) {
      const current = trail.at(-1) ?? this.root;
      if (part === "..") {
        if (trail.length > 1) trail.pop();
        continue;
      }
      const child = current.children.get(part);
      if (child !== undefined && (child.mode & 0o170000) === fileMode.symlink) {
        if (++links > MAX_LINKS) throw malformed(`${path}: too many symbolic links`);
        if (child.linkTarget.startsWith("/")) trail.length = 1;
        rest.push(...componentsOf(child.linkTarget).reverse());
        continue;
      }
      trail.push(child !== undefined && isDirectory(child) ? child : this.#makeDirectory(current, part));
    }
    return trail.at(-1) ?? this.root;
  }

  #makeDirectory(parent: LayerDirectory, name: string): LayerDirectory {
    if (++this.#entries > this.#maxEntries) throw overLimit("entries", `more than ${this.#maxEntries} tar entries`);
    const made = emptyDirectory();
    this.#place(parent, name, made);
    return made;
  }
}

function componentsOf(path: string): string[] {
  return path.split("/").filter((part) => part !== "" && part !== ".");
}

/** Normalised, `..` resolved by the text alone; above the root it is refused. */
function splitPath(path: string): string[] {
  const parts: string[] = [];
  for (const part of componentsOf(path)) {
    if (part === ".." && parts.pop() === undefined) throw malformed(`the path ${JSON.stringify(path)} leaves the layer`);
    if (part.length > MAX_NAME_BYTES)
      throw overLimit("name length", `a name in ${JSON.stringify(path.slice(0, 60))}… has more than ${MAX_NAME_BYTES} bytes`);
    if (part.includes("\0")) throw malformed(`the path ${JSON.stringify(path)} has a NUL in it`);
    if (part !== "..") parts.push(part);
  }
  return parts;
}

/** A directory nobody described: what `mkdir -p` by root would make, at time 0 so that the same layer gives the same bytes. */
function emptyDirectory(): LayerDirectory {
  const owner = { uid: 0, gid: 0, mtimeSeconds: 0, mtimeNs: 0, xattrs: undefined };
  return {
    ...owner,
    mode: fileMode.directory | 0o755,
    major: 0,
    minor: 0,
    linkTarget: "",
    sizeBytes: 0,
    dataBlock: 0,
    nlink: 2,
    children: new Map(),
  };
}

function nodeFrom(entry: TarEntry, before: LayerNode | undefined): LayerNode {
  if (entry.type === "directory") return directoryFrom(entry, before !== undefined && isDirectory(before) ? before : undefined);
  const { mode, uid, gid, mtimeSeconds, mtimeNs, major, minor, linkTarget, sizeBytes } = entry;
  if (entry.type === "hardlink") throw new Error("a hard link has no node of its own");
  if (entry.type === "symlink" && linkTarget === "") throw malformed(`${entry.path}: a symbolic link without a target`);
  return {
    mode: fileMode[entry.type] | mode,
    uid,
    gid,
    mtimeSeconds,
    mtimeNs,
    xattrs: xattrsOf(entry),
    major,
    minor,
    linkTarget: entry.type === "symlink" ? linkTarget : "",
    sizeBytes,
    dataBlock: 0,
    nlink: 1,
  };
}

/** A directory that comes again keeps what is in it. */
function directoryFrom(entry: TarEntry, before: LayerDirectory | undefined): LayerDirectory {
  const { mode, uid, gid, mtimeSeconds, mtimeNs } = entry;
  const opaque = before?.xattrs?.has(OPAQUE_XATTR) === true;
  const xattrs = xattrsOf(entry);
  return {
    mode: fileMode.directory | mode,
    uid,
    gid,
    mtimeSeconds,
    mtimeNs,
    xattrs: opaque ? new Map(xattrs).set(OPAQUE_XATTR, "y") : xattrs,
    major: 0,
    minor: 0,
    linkTarget: "",
    sizeBytes: 0,
    dataBlock: 0,
    nlink: before?.nlink ?? 2,
    children: before?.children ?? new Map(),
  };
}

function markOpaque(directory: LayerDirectory): void {
  directory.xattrs = new Map(directory.xattrs).set(OPAQUE_XATTR, "y");
}

/** An archive may not claim overlayfs's own marks: a redirect would show files of other layers. */
function xattrsOf(entry: TarEntry): ReadonlyMap<string, string> | undefined {
  if (entry.xattrs.size === 0) return undefined;
  const xattrs = new Map([...entry.xattrs].filter(([name]) => !name.startsWith("trusted.overlay.")));
  return xattrs.size === 0 ? undefined : xattrs;
}
