/** What a timer of Node holds; 24 days. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

/** Calls once when nothing has touched it for `timeoutMs`. 0: never. */
export class IdleTimer implements Disposable {
  readonly #timer: NodeJS.Timeout | undefined;

  constructor(timeoutMs: number, onIdle: () => void) {
    if (timeoutMs > 0) this.#timer = setTimeout(onIdle, Math.min(timeoutMs, MAX_TIMEOUT_MS));
  }

  touch(): void {
    this.#timer?.refresh();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
