import type { RawData, WebSocket } from "ws";

import { clientGone } from "./errors.ts";

/** Waiting for the client before what is forwarded is read on. */
const MAX_UNSENT_BYTES = 256 * 1024;
const NORMAL_CLOSE = 1000;
/** How long the client may take to close after we did. */
const LINGER_MS = 5_000;
/** As text a channel is the character that so much above its number. */
const ZERO = "0".charCodeAt(0);

/** Takes what the client sends. The connection is not read while one lags. */
export type OnMessage = (channel: number, bytes: Buffer) => Promise<void>;

/** A WebSocket whose messages begin with the number of their channel: a byte, or in the base64 variants a character with base64 behind it. */
export class WebSocketChannels {
  readonly #websocket: WebSocket;
  readonly #onMessage: OnMessage;
  readonly #onActivity: () => void;
  readonly #probeIntervalMs: number;
  readonly #gone = new AbortController();
  readonly #closed = Promise.withResolvers<void>();
  #lagging = 0;

  constructor(
    websocket: WebSocket,
    parts: { readonly onMessage: OnMessage; readonly onActivity: () => void; readonly probeIntervalMs: number },
  ) {
    this.#websocket = websocket;
    this.#onMessage = parts.onMessage;
    this.#onActivity = parts.onActivity;
    this.#probeIntervalMs = parts.probeIntervalMs;
    websocket.on("message", (data, isBinary) => void this.#take(data, isBinary));
    websocket.on("ping", () => this.#onActivity());
    websocket.on("error", () => websocket.terminate());
    websocket.on("close", () => {
      this.#gone.abort(clientGone("the client has closed the connection"));
      this.#closed.resolve();
    });
    websocket.resume();
  }

  /** Sub-protocol as agreed; "" when the client named none. */
  get protocol(): string {
    return this.#websocket.protocol;
  }

  /** Aborts when the client has left. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  /** Resolves when the client keeps up. Rejects when it is gone. */
  async send(channel: number, bytes: Buffer): Promise<void> {
    this.gone.throwIfAborted();
    this.#onActivity();
    const message = this.#isBase64
      ? String.fromCharCode(ZERO + channel) + bytes.toString("base64")
      : Buffer.concat([Buffer.from([channel]), bytes]);
    const { promise, resolve } = Promise.withResolvers<void>();
    // The connection's end calls back as well.
    this.#websocket.send(message, () => resolve());
    if (this.#websocket.bufferedAmount > MAX_UNSENT_BYTES) await promise;
    this.gone.throwIfAborted();
  }

  /** Says goodbye after everything sent. Resolves when the connection has ended, which the client has a while for. */
  async close(): Promise<void> {
    this.#websocket.close(NORMAL_CLOSE);
    const timer = setTimeout(() => this.#websocket.terminate(), LINGER_MS);
    await this.#closed.promise;
    clearTimeout(timer);
  }

  get #isBase64(): boolean {
    return this.protocol.includes("base64.");
  }

  async #take(data: RawData, isBinary: boolean): Promise<void> {
    this.#onActivity();
    if (!Buffer.isBuffer(data) || data.length === 0) return;
    const base64 = this.#isBase64 && !isBinary;
    const channel = data.readUInt8(0) - (base64 ? ZERO : 0);
    const bytes = base64 ? Buffer.from(data.toString("latin1", 1), "base64") : data.subarray(1);
    this.#lagging++;
    this.#websocket.pause();
    // A connection that is not read does not notice that its client is gone; a write does.
    const probe = setInterval(() => this.#websocket.ping(() => {}), this.#probeIntervalMs);
    await this.#onMessage(channel, bytes);
    clearInterval(probe);
    // One channel that keeps up must not wake the connection for another that does not.
    if (--this.#lagging === 0) this.#websocket.resume();
  }
}
