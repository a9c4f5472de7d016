import { readFile } from "node:fs/promises";

/** One line of /proc/PID/mountinfo, unescaped. Names as in proc(5). */
export interface Mount {
  readonly mountId: number;
  readonly parentId: number;
  /** `major:minor` */
  readonly device: string;
  /** The directory of the file system that is the root of this mount. */
  readonly root: string;
  readonly mountPoint: string;
  readonly options: readonly string[];
  /** Propagation: `shared:N`, `master:N`, `propagate_from:N`, `unbindable`; none is private. */
  readonly propagation: readonly string[];
  readonly fsType: string;
  readonly source: string;
  readonly superOptions: readonly string[];
}

/** Undefined for a line that is not one of mountinfo's. */
export function parseMountinfoLine(line: string): Mount | undefined {
  const fields = line.split(" ");
  const separator = fields.indexOf("-", 6);
  const [mountId, parentId, device, root, mountPoint, options] = fields;
  if (separator < 0 || mountId === undefined || parentId === undefined || device === undefined) return undefined;
  if (root === undefined || mountPoint === undefined || options === undefined) return undefined;
  const [fsType = "", source = "", superOptions = ""] = fields.slice(separator + 1);
  return {
    mountId: Number(mountId),
    parentId: Number(parentId),
    device,
    root: unescape(root),
    mountPoint: unescape(mountPoint),
    options: options.split(","),
    propagation: fields.slice(6, separator),
    fsType,
    source: unescape(source),
    superOptions: unescape(superOptions).split(","),
  };
}

export function parseMountinfo(text: string): readonly Mount[] {
  return text
    .split("\n")
    .map(parseMountinfoLine)
    .filter((mount) => mount !== undefined);
}

/** The mounts of our own mount namespace, in the kernel's order: of two on one mount point the later one is on top. */
export async function readMountinfo(): Promise<readonly Mount[]> {
  return parseMountinfo(await readFile("/proc/self/mountinfo", "utf8"));
}

/** The mount that a path without links lies on: the deepest one above it, and of several at one place the last. */
export function mountOf(mounts: readonly Mount[], path: string): Mount | undefined {
  const isAbove = ({ mountPoint }: Mount) => mountPoint === "/" || path === mountPoint || path.startsWith(`${mountPoint}/`);
  const deepest = (best: Mount | undefined, mount: Mount) =>
    best !== undefined && best.mountPoint.length > mount.mountPoint.length ? best : mount;
  return mounts.filter(isAbove).reduce<Mount | undefined>(deepest, undefined);
}

/** The kernel writes blank, tab, newline, backslash and `#` as octal; each escape is one byte of what may be UTF-8. */
function unescape(field: string): string {
  if (!field.includes("\\")) return field;
  const bytes = Buffer.from(field, "utf8").toString("latin1");
  const plain = bytes.replace(/\\([0-7]{3})/g, (_match, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
  return Buffer.from(plain, "latin1").toString("utf8");
}
