/** What a suite came to. `skips` are `name: reason`. */
export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly skips: readonly string[];
}

export const noCounts: Counts = { passed: 0, failed: 0, skipped: 0, skips: [] };

export function sum(a: Counts, b: Counts): Counts {
  return { passed: a.passed + b.passed, failed: a.failed + b.failed, skipped: a.skipped + b.skipped, skips: [...a.skips, ...b.skips] };
}

/** A suite in which nothing ran counts as one failure. */
export function verdict(counts: Counts): Counts & { readonly ranNone: boolean } {
  const ranNone = counts.passed + counts.failed === 0;
  return { ...counts, failed: ranNone ? 1 : counts.failed, ranNone };
}

/** Adds what one line of `cargo test` says. Each test binary closes with a line of its own. */
export function countCargoLine(counts: Counts, line: string): Counts {
  const result = /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;/.exec(line);
  if (result !== null) {
    const [passed, failed, skipped] = result.slice(1).map(Number);
    return sum(counts, { passed: passed ?? 0, failed: failed ?? 0, skipped: skipped ?? 0, skips: [] });
  }
  const ignored = /^test (\S+) .*?\.\.\. ignored(?:, (.*))?$/.exec(line);
  if (ignored !== null) return sum(counts, { ...noCounts, skips: [`${ignored[1]}: ${ignored[2] ?? "no reason given"}`] });
  return counts;
}
