import { malformed } from "../errors.ts";

/** Records of one extended header. Values are Latin-1: one character per byte. */
export interface PaxRecords {
  readonly values: ReadonlyMap<string, string>;
  /** The repeated records of sparse format 0.0, in order: offset, size, offset, size… */
  readonly sparsePairs: readonly number[];
}

/** `LENGTH KEY=VALUE\n`, repeated. */
export function parsePax(body: Buffer): PaxRecords {
  const values = new Map<string, string>();
  const sparsePairs: number[] = [];
  let at = 0;
  while (at < body.length) {
    const blank = body.indexOf(0x20, at);
    const lengthText = blank === -1 ? "" : body.toString("latin1", at, blank);
    const length = /^\d{1,9}$/.test(lengthText) ? Number(lengthText) : 0;
    const end = at + length;
    const equals = body.indexOf(0x3d, blank);
    if (length === 0 || end > body.length || body[end - 1] !== 0x0a || equals === -1 || equals >= end) {
      // Some writers pad with NULs.
      if (body.subarray(at).every((byte) => byte === 0)) break;
      throw malformed("a pax record is malformed");
    }
    const key = body.toString("latin1", blank + 1, equals);
    const value = body.toString("latin1", equals + 1, end - 1);
    if (key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes") sparsePairs.push(paxNumber(value, key));
    else values.set(key, value);
    at = end;
  }
  return { values, sparsePairs };
}

/** A decimal integer. */
export function paxNumber(value: string, key: string): number {
  const plain = /^-?\d{1,20}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(plain)) throw malformed(`pax record ${key} is not a number in range`);
  return plain;
}

/** `SECONDS[.FRACTION]`; the nanoseconds count upwards from the seconds, also before 1970. */
export function paxTime(value: string, key: string): { readonly seconds: number; readonly ns: number } {
  const match = /^(-?)(\d{1,16})(?:\.(\d*))?$/.exec(value);
  const seconds = Number(match?.[2]);
  if (match === null || !Number.isSafeInteger(seconds)) throw malformed(`pax record ${key} is not a time in range`);
  const ns = Number((match[3] ?? "").slice(0, 9).padEnd(9, "0"));
  if (match[1] !== "-") return { seconds, ns };
  return ns === 0 ? { seconds: 0 - seconds, ns } : { seconds: -seconds - 1, ns: 1e9 - ns };
}
