import { randomBytes } from "node:crypto";

import { RuntimeError } from "../runtime/errors.ts";
import type { StreamRequest } from "../runtime/stream-request.ts";

/** 8 base64url characters. */
const TOKEN_BYTES = 6;
export const TOKEN_LIFETIME_MS = 60_000;
const MAX_OUTSTANDING = 1000;

interface Entry {
  readonly request: StreamRequest;
  readonly expiresAtMs: number;
}

/** Requests that wait for their client. A token works once and for a minute. */
export class Tokens {
  /** In the order of their end. */
  readonly #entries = new Map<string, Entry>();
  readonly #nowMs: () => number;

  constructor(nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs;
  }

  /** Throws `ERR_TOO_MANY_STREAMS`. */
  issue(request: StreamRequest): string {
    this.#dropExpired();
    if (this.#entries.size >= MAX_OUTSTANDING) {
      throw new RuntimeError(
        { code: "ERR_TOO_MANY_STREAMS" },
        `${MAX_OUTSTANDING} exec, attach and port-forward requests wait for their clients: connect to them or try again in a minute`,
      );
    }
    const token = randomBytes(TOKEN_BYTES).toString("base64url");
    this.#entries.set(token, { request, expiresAtMs: this.#nowMs() + TOKEN_LIFETIME_MS });
    return token;
  }

  /** The request of a token that was not used before. */
  redeem(token: string): StreamRequest | undefined {
    this.#dropExpired();
    const entry = this.#entries.get(token);
    this.#entries.delete(token);
    return entry?.request;
  }

  #dropExpired(): void {
    const nowMs = this.#nowMs();
    for (const [token, { expiresAtMs }] of this.#entries) {
      if (expiresAtMs > nowMs) return;
      this.#entries.delete(token);
    }
  }
}
