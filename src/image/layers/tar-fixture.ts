/** Tar archives byte by byte, for tests: what no tar program would write, too. */
export interface FixtureEntry {
  readonly name: string;
  readonly type?: string;
  readonly data?: Buffer;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: number;
  readonly link?: string;
  readonly major?: number;
  readonly minor?: number;
  /** Pax records before the entry; values are Latin-1. */
  readonly pax?: readonly (readonly [string, string])[];
  /** Written into the header block last, before the checksum. */
  readonly patch?: (block: Buffer) => void;
  /** The header's size, where it is not the data's. */
  readonly size?: number;
  readonly magic?: string;
}

export function tarOf(entries: readonly FixtureEntry[]): Buffer {
  return Buffer.concat([...entries.map(entryOf), Buffer.alloc(1024)]);
}

export function entryOf(entry: FixtureEntry): Buffer {
  const data = entry.data ?? Buffer.alloc(0);
  const parts: Buffer[] = [];
  if (entry.pax !== undefined) {
    const body = Buffer.concat(entry.pax.map(([key, value]) => paxRecord(key, value)));
    parts.push(headerOf({ name: "PaxHeaders/x", type: "x", size: body.length }), padded(body));
  }
  parts.push(headerOf({ ...entry, size: entry.size ?? data.length }), padded(data));
  return Buffer.concat(parts);
}

function paxRecord(key: string, value: string): Buffer {
  const rest = ` ${key}=${value}\n`.length;
  let length = rest + String(rest).length;
  if (rest + String(length).length !== length) length++;
  return Buffer.from(`${length} ${key}=${value}\n`, "latin1");
}

/** GNU's long name ("L") or long link ("K") before an entry. */
export function longOf(type: "L" | "K", text: string): FixtureEntry {
  return { name: "././@LongLink", type, data: Buffer.from(`${text}\0`, "latin1") };
}

function headerOf(entry: FixtureEntry & { readonly size: number }): Buffer {
  const block = Buffer.alloc(512);
  block.write(entry.name.slice(0, 100), 0, "latin1");
  numeric(block, 100, 8, entry.mode ?? 0o644);
  numeric(block, 108, 8, entry.uid ?? 0);
  numeric(block, 116, 8, entry.gid ?? 0);
  numeric(block, 124, 12, entry.size);
  numeric(block, 136, 12, entry.mtime ?? 1_700_000_000);
  block.write(entry.type ?? "0", 156, "latin1");
  block.write((entry.link ?? "").slice(0, 100), 157, "latin1");
  block.write(entry.magic ?? "ustar\u000000", 257, "latin1");
  numeric(block, 329, 8, entry.major ?? 0);
  numeric(block, 337, 8, entry.minor ?? 0);
  entry.patch?.(block);
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/** Octal where it fits, else base-256. */
export function numeric(block: Buffer, offset: number, length: number, value: number): void {
  if (value >= 0 && value < 8 ** (length - 1)) {
    block.write(`${value.toString(8).padStart(length - 1, "0")}\0`, offset, "latin1");
    return;
  }
  let rest = BigInt.asUintN(length * 8, BigInt(value));
  for (let at = offset + length - 1; at >= offset; at--) {
    block[at] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  block[offset] = (block[offset] ?? 0) | 0x80;
}

function padded(data: Buffer): Buffer {
  return Buffer.concat([data, Buffer.alloc((512 - (data.length % 512)) % 512)]);
}
