/** One member of a layer. Owner root and mode 0755 (directory, file) unless given. */
export type TarEntry = TarPlace &
  (
    | { readonly type: "directory" }
    | { readonly type: "file"; readonly content: Buffer | string }
    | { readonly type: "hardlink" | "symlink"; readonly target: string }
  );

interface TarPlace {
  /** Relative to the root, without a leading slash. */
  readonly path: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
}

const blockSize = 512;
const typeFlags = { file: "0", hardlink: "1", symlink: "2", directory: "5" } as const;

/** A ustar archive that is the same for the same entries: no time stamps, no names of this machine. */
export function tar(entries: readonly TarEntry[]): Buffer {
  return Buffer.concat([...entries.flatMap(member), Buffer.alloc(2 * blockSize)]);
}

function member(entry: TarEntry): Buffer[] {
  const content = entry.type === "file" ? Buffer.from(entry.content) : Buffer.alloc(0);
  return [header(entry, content.length), content, Buffer.alloc((blockSize - (content.length % blockSize)) % blockSize)];
}

function header(entry: TarEntry, sizeBytes: number): Buffer {
  const block = Buffer.alloc(blockSize);
  if (Buffer.byteLength(entry.path) > 100) throw new Error(`tar: the name '${entry.path}' is longer than 100 bytes`);
  block.write(entry.path, 0);
  block.write(octal(entry.mode ?? 0o755, 8), 100);
  block.write(octal(entry.uid ?? 0, 8), 108);
  block.write(octal(entry.gid ?? 0, 8), 116);
  block.write(octal(sizeBytes, 12), 124);
  block.write(octal(0, 12), 136);
  block.write(" ".repeat(8), 148);
  block.write(typeFlags[entry.type], 156);
  if (entry.type === "hardlink" || entry.type === "symlink") block.write(entry.target, 157);
  block.write("ustar\u000000", 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${octal(sum, 7)} `, 148);
  return block;
}

/** Octal digits and a NUL in a field of `width` bytes. */
function octal(value: number, width: number): string {
  return `${value.toString(8).padStart(width - 1, "0")}\0`;
}
