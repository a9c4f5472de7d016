import { setTimeout as delay } from "node:timers/promises";

/**
 * A signal that lives as long as one call. Declare it with `using`: leaving the block aborts the signal and takes its listeners off
 * the parents, on success too.
 *
 * `AbortSignal.any` is not used: it stays tied to a long-lived parent until that parent aborts, so one join per call on the process's
 * signal leaks.
 */
export interface SignalScope extends Disposable {
  readonly signal: AbortSignal;
  /** Aborts this scope alone. */
  abort(reason?: unknown): void;
}

/** Aborts as soon as one of `parents` does, with its reason. */
export function joinSignals(...parents: readonly AbortSignal[]): SignalScope {
  const controller = new AbortController();
  const release: (() => void)[] = [];
  for (const parent of parents) {
    if (parent.aborted) {
      controller.abort(parent.reason);
      break;
    }
    const onAbort = (): void => controller.abort(parent.reason);
    parent.addEventListener("abort", onAbort, { once: true });
    release.push(() => parent.removeEventListener("abort", onAbort));
  }
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    [Symbol.dispose]() {
      for (const drop of release) drop();
      controller.abort(new DOMException("the call has ended", "AbortError"));
    },
  };
}

/** Aborts with `parent`, or with a `TimeoutError` after `timeoutMs`. */
export function withDeadline(timeoutMs: number, parent: AbortSignal): SignalScope {
  const scope = joinSignals(parent);
  const timer = setTimeout(() => scope.abort(timeoutError(timeoutMs)), timeoutMs);
  return {
    signal: scope.signal,
    abort: (reason) => scope.abort(reason),
    [Symbol.dispose]() {
      clearTimeout(timer);
      scope[Symbol.dispose]();
    },
  };
}

/** True for the reason of a passed deadline, ours or the platform's. */
export function isTimeout(reason: unknown): boolean {
  return reason instanceof DOMException && reason.name === "TimeoutError";
}

/** Rejects with the signal's reason when it aborts first. */
export async function sleep(durationMs: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  try {
    await delay(durationMs, undefined, { signal });
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  }
}

/** Waits for `promise` until `signal` aborts; the work behind the promise goes on, and its late failure is not an unhandled one. */
export async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) promise.catch(() => {});
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function timeoutError(timeoutMs: number): DOMException {
  return new DOMException(`no result within ${timeoutMs} ms`, "TimeoutError");
}
