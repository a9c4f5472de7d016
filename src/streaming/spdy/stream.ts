import { ByteQueue } from "../byte-queue.ts";
import { clientGone, type StreamingError } from "../errors.ts";
import type { SpdyConnection } from "./connection.ts";
import { controlFrame, dataHead, FLAG_FIN, RST_STREAM } from "./frames.ts";
import type { Headers } from "./header-codec.ts";

/** Of one frame of ours: many small frames let streams take turns. */
const MAX_FRAME_BYTES = 32 * 1024;

/** One stream that the client opened. Each direction ends by itself. */
export class SpdyStream {
  readonly id: number;
  readonly headers: Headers;
  /** What the client sends; its end is the client's half-close, a reset or the end of the connection. */
  readonly incoming = new ByteQueue();
  readonly #connection: SpdyConnection;
  readonly #closed = new AbortController();
  #localEnded = false;
  #remoteEnded = false;

  constructor(connection: SpdyConnection, id: number, headers: Headers) {
    this.#connection = connection;
    this.id = id;
    this.headers = headers;
  }

  /** Aborts when neither side will send any more; with a `StreamingError` when that is not by two half-closes. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  /** Resolves when the client keeps up; at once after a reset. Rejects when the connection is gone. */
  async write(bytes: Buffer): Promise<void> {
    for (let offset = 0; offset < bytes.length && !this.#localEnded; offset += MAX_FRAME_BYTES) {
      const piece = bytes.subarray(offset, offset + MAX_FRAME_BYTES);
      await this.#connection.send(dataHead(this.id, 0, piece.length), piece);
    }
  }

  /** Half-close. */
  async end(): Promise<void> {
    if (this.#localEnded) return;
    this.#localEnded = true;
    const sent = this.#connection.send(dataHead(this.id, FLAG_FIN, 0));
    this.#forgetWhenClosed();
    await sent;
  }

  async reset(reason: number): Promise<void> {
    if (this.closed.aborted) return;
    this.ended();
    await this.#connection.send(controlFrame(RST_STREAM, 0, [this.id, reason]));
  }

  /** The client has half-closed. */
  remoteEnd(): void {
    this.#remoteEnded = true;
    this.incoming.end();
    this.#forgetWhenClosed();
  }

  /** Both directions are over: reset, or the connection is gone. */
  ended(): void {
    this.#localEnded = true;
    this.#remoteEnded = true;
    this.incoming.discard();
    this.#forgetWhenClosed(clientGone("the stream was reset"));
  }

  #forgetWhenClosed(reason?: StreamingError): void {
    if (!this.#localEnded || !this.#remoteEnded) return;
    this.#connection.forget(this);
    this.#closed.abort(reason);
  }
}
