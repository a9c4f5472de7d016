import { mkdir, readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../lib/atomic-write.ts";
import type { TrialOutcome } from "./trial-boot.ts";

/** The outcome of a trial boot, as it is kept for the next start of the daemon. */
export interface Verdict {
  /** What it is about: see `verdictKey`. */
  readonly key: string;
  readonly outcome: TrialOutcome;
  /** Trials in a row without success, this one included; 0 after a success. */
  readonly failures: number;
  /** Unix milliseconds. */
  readonly triedAtMs: number;
}

const text = z.string().max(64 << 10);
const verdictSchema = z.object({
  key: text,
  outcome: z.discriminatedUnion("booted", [
    z.object({ booted: z.literal(true), firstAnswerMs: z.number(), message: text }),
    z.object({ booted: z.literal(false), message: text, consoleTail: text }),
  ]),
  failures: z.number().int().nonnegative(),
  triedAtMs: z.number(),
});

/** Undefined when there is none about `key`. A file that cannot be read is none: the next trial writes it anew. */
export async function readVerdict(file: string, key: string): Promise<Verdict | undefined> {
  try {
    const verdict = verdictSchema.parse(JSON.parse(await readFile(file, "utf8")));
    return verdict.key === key ? verdict : undefined;
  } catch {
    return undefined;
  }
}

/** The directory is made when a check comes before the daemon's first start. */
export async function keepVerdict(file: string, verdict: Verdict): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  await writeFileAtomic(file, `${JSON.stringify(verdict, undefined, 2)}\n`);
}

/** When the next trial after a failed one is due, in Unix milliseconds. */
export function retryAtMs(
  { failures, triedAtMs }: Verdict,
  backoff: { readonly retryBaseMs: number; readonly retryMaxMs: number },
): number {
  return triedAtMs + Math.min(backoff.retryMaxMs, backoff.retryBaseMs * 2 ** Math.min(failures - 1, 30));
}
