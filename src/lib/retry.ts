import { sleep } from "./abort.ts";

export interface Backoff {
  readonly baseMs: number;
  readonly maxMs: number;
}

/** Wait before attempt `attempt` (the first retry is 1): doubles up to `maxMs`, the upper half of it random so that retries spread. */
export function backoffMs(attempt: number, backoff: Backoff, random: () => number = Math.random): number {
  const ceiling = Math.min(backoff.maxMs, backoff.baseMs * 2 ** Math.min(attempt - 1, 30));
  return ceiling / 2 + (ceiling / 2) * random();
}

export interface RetryOptions extends Backoff {
  readonly signal: AbortSignal;
  /** Runs of the task in all, at least 1. */
  readonly attempts: number;
  /** False ends the retries at once. */
  readonly retryable: (error: unknown) => boolean;
}

/** Runs `task` until it succeeds; rejects with its last error, or with the signal's reason. */
export async function retry<T>(task: (attempt: number) => Promise<T>, options: RetryOptions): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    options.signal.throwIfAborted();
    try {
      return await task(attempt);
    } catch (error) {
      if (options.signal.aborted || attempt >= options.attempts || !options.retryable(error)) throw error;
    }
    await sleep(backoffMs(attempt, options), options.signal);
  }
}
