import { malformed, overLimit } from "../errors.ts";
import type { TarHeader } from "./tar-header.ts";
import { type PaxRecords, paxNumber, paxTime } from "./tar-pax.ts";

export type TarType = "file" | "hardlink" | "symlink" | "char" | "block" | "directory" | "fifo";

/** One entry, all extensions applied. Text is Latin-1: one character per byte. */
export interface TarEntry {
  /** As written: neither normalised nor checked. */
  readonly path: string;
  readonly type: TarType;
  /** Permission bits with setuid, setgid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  readonly mtimeNs: number;
  /** Of the file as its reader sees it, holes included; 0 for what is not a file. */
  readonly sizeBytes: number;
  /** Bytes of data in the archive. */
  readonly storedBytes: number;
  readonly linkTarget: string;
  readonly major: number;
  readonly minor: number;
  readonly xattrs: ReadonlyMap<string, string>;
}

/** What headers before this one said about it. */
export interface EntryExtensions {
  readonly pax: PaxRecords | undefined;
  readonly longName: string | undefined;
  readonly longLink: string | undefined;
  /** Of the old GNU sparse format. */
  readonly realSize: number | undefined;
}

/** The kernel's limit. */
const MAX_PATH_BYTES = 4096;
const MAX_ID = 0xffff_fffe;
const XATTR_PREFIX = "SCHILY.xattr.";

export function describeEntry(header: TarHeader, extensions: EntryExtensions): TarEntry {
  const pax = extensions.pax?.values ?? new Map<string, string>();
  const path = orElse(pax.get("GNU.sparse.name"), orElse(pax.get("path"), extensions.longName ?? header.name));
  const linkTarget = orElse(pax.get("linkpath"), extensions.longLink ?? header.linkname);
  if (path.length > MAX_PATH_BYTES) throw overLimit("path length", `a path has ${path.length} bytes, more than ${MAX_PATH_BYTES}`);
  if (linkTarget.length > MAX_PATH_BYTES)
    throw overLimit("link length", `the link target of ${path} has more than ${MAX_PATH_BYTES} bytes`);
  const type = typeOf(header.typeflag, path);
  const storedBytes = type === "file" ? numberIn(pax, "size", header.sizeBytes) : 0;
  const realSize = numberIn(pax, "GNU.sparse.realsize", numberIn(pax, "GNU.sparse.size", extensions.realSize ?? storedBytes));
  if (storedBytes < 0 || realSize < 0) throw malformed(`${path}: the size is negative`);
  const mtime = pax.get("mtime");
  const { seconds, ns } = mtime === undefined || mtime === "" ? { seconds: header.mtime, ns: 0 } : paxTime(mtime, "mtime");
  return {
    path,
    type,
    mode: header.mode & 0o7777,
    uid: idOf(path, "uid", numberIn(pax, "uid", header.uid)),
    gid: idOf(path, "gid", numberIn(pax, "gid", header.gid)),
    mtimeSeconds: seconds,
    mtimeNs: ns,
    sizeBytes: type === "file" ? realSize : 0,
    storedBytes,
    linkTarget,
    major: type === "char" || type === "block" ? header.major : 0,
    minor: type === "char" || type === "block" ? header.minor : 0,
    xattrs: xattrsOf(pax),
  };
}

function typeOf(typeflag: string, path: string): TarType {
  switch (typeflag) {
    case "0":
    case "7":
    case "S":
      // How tar said "directory" before it had a typeflag for it.
      return path.endsWith("/") && typeflag === "0" ? "directory" : "file";
    case "1":
      return "hardlink";
    case "2":
      return "symlink";
    case "3":
      return "char";
    case "4":
      return "block";
    case "5":
      return "directory";
    case "6":
      return "fifo";
    default:
      throw malformed(`${path}: tar entries of type ${JSON.stringify(typeflag)} are not supported`);
  }
}

function xattrsOf(pax: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  const xattrs = new Map<string, string>();
  for (const [key, value] of pax) if (key.startsWith(XATTR_PREFIX)) xattrs.set(key.slice(XATTR_PREFIX.length), value);
  return xattrs;
}

/** An empty record takes back one of a global header, so it counts as none. */
function orElse(value: string | undefined, fallback: string): string {
  return value === undefined || value === "" ? fallback : value;
}

function numberIn(pax: ReadonlyMap<string, string>, key: string, fallback: number): number {
  const value = pax.get(key);
  return value === undefined || value === "" ? fallback : paxNumber(value, key);
}

function idOf(path: string, field: string, id: number): number {
  if (id < 0 || id > MAX_ID) throw malformed(`${path}: ${field} ${id} is out of range`);
  return id;
}
