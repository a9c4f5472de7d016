import { isIP } from "node:net";
import { isAbsolute, normalize } from "node:path";
import { isLoopback } from "../lib/loopback.ts";
import { formatDuration, formatSize, parseDurationMs, parseSizeBytes } from "../lib/units.ts";

/** A TOML value that a key can have; a date, a float or a list of anything else is none. */
export type TomlValue = string | number | boolean | readonly string[];

export type Decoded<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly want: string };

/** How one type of value is read from TOML, written to it, and named to an operator. */
export interface Kind<T> {
  /** For the reference: `duration, such as "5m"`. */
  readonly name: string;
  decode(value: TomlValue): Decoded<T>;
  encode(value: T): TomlValue;
}

/** A kind whose values are TOML strings. `parse` answers undefined for a bad one. */
function textKind<T>(name: string, parse: (text: string) => T | undefined, print: (value: T) => string): Kind<T> {
  return {
    name,
    decode(value) {
      const parsed = typeof value === "string" ? parse(value) : undefined;
      return parsed === undefined ? { ok: false, want: name } : { ok: true, value: parsed };
    },
    encode: print,
  };
}

const same = (text: string): string => text;

function parsePath(text: string): string | undefined {
  if (!isAbsolute(text) || text.includes("\0")) return undefined;
  return text === "/" ? text : normalize(text).replace(/\/$/, "");
}

export const pathKind: Kind<string> = textKind("absolute path", parsePath, same);
export const pathOrNoneKind: Kind<string> = textKind('absolute path, or ""', (text) => (text === "" ? "" : parsePath(text)), same);
export const textOrNoneKind: Kind<string> = textKind("text", same, same);
export const durationKind: Kind<number> = textKind('duration, such as "90s", "5m" or "1h30m"', parseDurationMs, formatDuration);
export const sizeKind: Kind<number> = textKind('size, such as "512MiB" or "2GiB"', (text) => parseSizeBytes(text) || undefined, formatSize);
export const addressKind: Kind<string> = textKind("IP address", (text) => (isIP(text) === 0 ? undefined : text), same);
export const loopbackKind: Kind<string> = textKind(
  'loopback IP address, such as "127.0.0.1" or "::1"',
  (text) => (isLoopback(text) ? text : undefined),
  same,
);

/** The kernel's limit for a socket's path, its closing zero taken off. */
const SOCKET_PATH_MAX = 107;

export const unixUrlKind: Kind<string> = textKind(
  `unix:///ABSOLUTE/PATH of at most ${SOCKET_PATH_MAX} bytes`,
  (text) => {
    const path = text.startsWith("unix://") ? parsePath(text.slice("unix://".length)) : undefined;
    return path === undefined || Buffer.byteLength(path) > SOCKET_PATH_MAX ? undefined : path;
  },
  (path) => `unix://${path}`,
);

export function choiceKind<const T extends string>(...choices: readonly T[]): Kind<T> {
  const name = choices.map((choice) => JSON.stringify(choice)).join(" | ");
  return textKind(name, (text) => choices.find((choice) => choice === text), same);
}

export function integerKind(min: number, max: number): Kind<number> {
  const name = max === Number.MAX_SAFE_INTEGER ? `integer, ${min} or more` : `integer, ${min} to ${max}`;
  return {
    name,
    decode: (value) =>
      typeof value === "number" && Number.isSafeInteger(value) && value >= min && value <= max
        ? { ok: true, value }
        : { ok: false, want: name },
    encode: (value) => value,
  };
}

/** Lists of what `item` reads, at least `min` long. */
export function listKind(item: Kind<string>, min = 0): Kind<readonly string[]> {
  const name = `list${min > 0 ? ", not empty" : ""}; each: ${item.name}`;
  return {
    name,
    decode(value) {
      if (!Array.isArray(value) || value.length < min) return { ok: false, want: name };
      const items: string[] = [];
      for (const element of value as readonly string[]) {
        const decoded = item.decode(element);
        if (!decoded.ok) return { ok: false, want: name };
        items.push(decoded.value);
      }
      return { ok: true, value: items };
    },
    encode: (value) => value,
  };
}
