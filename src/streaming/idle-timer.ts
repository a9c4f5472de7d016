/** Calls once when nothing has touched it for `timeoutMs`. */
export class IdleTimer implements Disposable {
  readonly #timer: NodeJS.Timeout;

  constructor(timeoutMs: number, onIdle: () => void) {
    this.#timer = setTimeout(onIdle, timeoutMs);
  }

  touch(): void {
    this.#timer.refresh();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
