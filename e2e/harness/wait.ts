import { setTimeout as sleep } from "node:timers/promises";

import { slowness } from "./settings.ts";

export interface WaitOptions {
  /** On a usual host. Default 10 s. */
  readonly timeoutMs?: number;
  /** Default 20 ms. */
  readonly intervalMs?: number;
}

/** Asks again and again until the answer is neither undefined nor false; fails with `what` and the last error. */
export async function waitFor<T>(
  what: string,
  ask: () => Promise<T | undefined | false> | T | undefined | false,
  options: WaitOptions = {},
): Promise<T> {
  const deadline = performance.now() + (options.timeoutMs ?? 10_000) * slowness();
  let lastError: unknown;
  for (;;) {
    try {
      const answer = await ask();
      if (answer !== undefined && answer !== false) return answer;
      lastError = undefined;
    } catch (error) {
      lastError = error;
    }
    if (performance.now() > deadline) throw new Error(`gave up waiting for ${what}`, { cause: lastError });
    await sleep(options.intervalMs ?? 20);
  }
}
