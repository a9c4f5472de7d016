import { InvalidArgumentError } from "../errors.ts";

/** A field that must not be empty. */
export function requireId(value: string | undefined, field: string): string {
  if (value === undefined || value === "") throw new InvalidArgumentError(field, "must not be empty");
  return value;
}

/** A message that must be there. */
export function requireMessage<T>(value: T | undefined, field: string): T {
  if (value === undefined) throw new InvalidArgumentError(field, "must be set");
  return value;
}

/** CRI's whole seconds; 0 keeps its meaning. */
export function secondsToMs(seconds: bigint, field: string): number {
  if (seconds < 0n) throw new InvalidArgumentError(field, `must not be negative, is ${seconds}`);
  const limit = BigInt(Number.MAX_SAFE_INTEGER) / 1000n;
  return Number(seconds < limit ? seconds : limit) * 1000;
}

/** An empty string or an absolute path without NUL. */
export function optionalPath(value: string, field: string): string {
  if (value !== "" && !value.startsWith("/"))
    throw new InvalidArgumentError(field, `must be an absolute path, is ${JSON.stringify(value)}`);
  return withoutNul(value, field);
}

export function absolutePath(value: string, field: string): string {
  return optionalPath(requireId(value, field), field);
}

/** What becomes a C string: no NUL. */
export function withoutNul(value: string, field: string): string {
  if (value.includes("\0")) throw new InvalidArgumentError(field, "must not hold a NUL byte");
  return value;
}

/** A 64-bit number that JSON can hold. */
export function safeNumber(value: bigint, field: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER) || value < BigInt(Number.MIN_SAFE_INTEGER)) {
    throw new InvalidArgumentError(field, `is out of range: ${value}`);
  }
  return Number(value);
}

/** The highest id that every kernel interface takes as a signed number. */
const MAX_ID = 0x7fff_ffffn;

/** A user or group id. */
export function unixId(value: bigint, field: string): number {
  if (value < 0n || value > MAX_ID) throw new InvalidArgumentError(field, `must be between 0 and ${MAX_ID}, is ${value}`);
  return Number(value);
}

/** Looks `value` up in a table of an enum's known numbers. */
export function known<T>(table: Readonly<Record<number, T>>, value: number, field: string): T {
  const found = table[value];
  if (found === undefined) throw new InvalidArgumentError(field, `has no value ${value}: use one of ${Object.values(table).join(", ")}`);
  return found;
}

/** A copy with sorted keys: protobuf maps have no order, and identical requests are told by their JSON. */
export function sortedMap(map: { readonly [key: string]: string }): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1)));
}
