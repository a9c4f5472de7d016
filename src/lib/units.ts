const durationUnitMs: ReadonlyMap<string, number> = new Map([
  ["ms", 1],
  ["s", 1_000],
  ["m", 60_000],
  ["h", 3_600_000],
]);

const sizeUnitBytes: ReadonlyMap<string, number> = new Map([
  ["B", 1],
  ["KiB", 2 ** 10],
  ["MiB", 2 ** 20],
  ["GiB", 2 ** 30],
  ["TiB", 2 ** 40],
]);

/** Milliseconds of `300ms`, `90s`, `5m` or `1h30m`; undefined for anything else. */
export function parseDurationMs(text: string): number | undefined {
  if (text === "0") return 0;
  if (!/^(\d+(ms|s|m|h))+$/.test(text)) return undefined;
  let totalMs = 0;
  for (const [, count, unit] of text.matchAll(/(\d+)(ms|s|m|h)/g)) totalMs += Number(count) * (durationUnitMs.get(unit ?? "") ?? 0);
  return Number.isSafeInteger(totalMs) ? totalMs : undefined;
}

/** The shortest text that `parseDurationMs` reads back. */
export function formatDuration(durationMs: number): string {
  let restMs = durationMs;
  let text = "";
  for (const [unit, unitMs] of [...durationUnitMs].reverse()) {
    const count = Math.floor(restMs / unitMs);
    restMs -= count * unitMs;
    if (count > 0) text += `${count}${unit}`;
  }
  return text === "" ? "0s" : text;
}

/** Bytes of `4096B`, `64KiB`, `512MiB`, `2GiB` or `1TiB`; undefined for anything else. */
export function parseSizeBytes(text: string): number | undefined {
  const match = /^(\d+)(B|KiB|MiB|GiB|TiB)$/.exec(text);
  if (match === null) return undefined;
  const bytes = Number(match[1]) * (sizeUnitBytes.get(match[2] ?? "") ?? 0);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** In the largest unit that divides it, so that `parseSizeBytes` reads it back. */
export function formatSize(sizeBytes: number): string {
  const units = [...sizeUnitBytes].reverse();
  const [unit, unitBytes] = units.find(([, bytes]) => sizeBytes >= bytes && sizeBytes % bytes === 0) ?? ["B", 1];
  return `${sizeBytes / unitBytes}${unit}`;
}
