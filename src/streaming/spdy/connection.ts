import type { Duplex } from "node:stream";

import { readAhead } from "../../lib/read-ahead.ts";
import { WriteBatch } from "../../lib/write-batch.ts";
import { clientGone, spdyError } from "../errors.ts";
import {
  controlFrame,
  FLAG_FIN,
  type Frame,
  FrameReader,
  GOAWAY,
  HEADERS,
  PING,
  REFUSED_STREAM,
  RST_STREAM,
  SYN_REPLY,
  SYN_STREAM,
} from "./frames.ts";
import { HeaderCodec } from "./header-codec.ts";
import { SpdyStream } from "./stream.ts";

/** Of what is read ahead, and of what is written and not taken yet. */
const MAX_WAITING_BYTES = 256 * 1024;
const MAX_STREAMS = 1000;
/** How long the client may take to close after we did. */
const LINGER_MS = 5_000;
/** Pings of the side that accepted the connection have even numbers. */
const PROBE_ID = 2;

/** Takes a new stream, or not: then it is reset. */
export type OnStream = (stream: SpdyStream) => boolean;

/**
 * The accepting side of SPDY/3.1 over a byte stream. Frames are handled one after the other: while a stream's consumer lags, the
 * transport is not read, which is the only backpressure that the peers know (they keep no flow control windows).
 */
export class SpdyConnection {
  readonly #transport: Duplex;
  readonly #batch: WriteBatch;
  readonly #onStream: OnStream;
  readonly #streams = new Map<number, SpdyStream>();
  readonly #codec = new HeaderCodec();
  readonly #gone = new AbortController();
  readonly #onActivity: () => void;
  readonly #probeIntervalMs: number;
  #lastStreamId = 0;

  constructor(
    transport: Duplex,
    parts: { readonly onStream: OnStream; readonly onActivity: () => void; readonly probeIntervalMs: number },
  ) {
    this.#transport = transport;
    this.#batch = new WriteBatch(transport, MAX_WAITING_BYTES);
    this.#onStream = parts.onStream;
    this.#probeIntervalMs = parts.probeIntervalMs;
    this.#onActivity = parts.onActivity;
    transport.on("error", (error) => this.#lose(`the connection broke: ${error.message}`));
    transport.on("close", () => this.#lose("the client has closed the connection"));
  }

  /** Aborts when the connection has ended, whoever ended it. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  /** Serves until the connection ends. Throws `ERR_PROTOCOL` when the client breaks the protocol. */
  async run(): Promise<void> {
    const reader = new FrameReader();
    try {
      for await (const chunk of readAhead(this.#transport, MAX_WAITING_BYTES)) {
        for (const frame of reader.push(chunk)) await this.#handle(frame);
      }
    } catch (error) {
      if (!this.gone.aborted) throw error;
    } finally {
      this.#lose("the connection has ended");
      this.#codec[Symbol.dispose]();
      this.#transport.destroy();
    }
  }

  /** Says goodbye after everything written, then waits a while for the client to close. */
  close(): void {
    if (this.gone.aborted) return;
    for (const stream of this.#streams.values()) stream.ended();
    this.#transport.end(controlFrame(GOAWAY, 0, [this.#lastStreamId, 0]));
    // An earlier destroy would reset the connection under the data that the client has still to read.
    const timer = setTimeout(() => this.#transport.destroy(), LINGER_MS);
    this.gone.addEventListener("abort", () => clearTimeout(timer), { once: true });
  }

  destroy(): void {
    this.#transport.destroy();
  }

  /** Resolves when the client keeps up. Rejects when it is gone. */
  async send(...parts: readonly Buffer[]): Promise<void> {
    this.gone.throwIfAborted();
    if (this.#transport.writableEnded) return;
    this.#onActivity();
    this.#batch.add(...parts);
    await this.#batch.ready();
    this.gone.throwIfAborted();
  }

  forget(stream: SpdyStream): void {
    this.#streams.delete(stream.id);
  }

  /** A frame may be waiting for room in a stream that nobody reads any more, and `run` for the frame. */
  #lose(why: string): void {
    this.#gone.abort(clientGone(why));
    for (const stream of this.#streams.values()) stream.ended();
  }

  async #handle(frame: Frame): Promise<void> {
    this.#onActivity();
    if (frame.kind === "data") {
      const stream = this.#streams.get(frame.streamId);
      if (stream !== undefined) await this.#deliver(stream, frame.bytes, frame.fin);
      return;
    }
    switch (frame.type) {
      case SYN_STREAM:
        await this.#open(frame.flags, frame.payload);
        return;
      case HEADERS: {
        // Its block is part of the compression's history.
        await this.#codec.decode(requireBytes(frame.payload, 4).subarray(4));
        if ((frame.flags & FLAG_FIN) !== 0) this.#find(frame.payload)?.remoteEnd();
        return;
      }
      case SYN_REPLY:
        throw spdyError("a reply to a stream that was never opened");
      case RST_STREAM: {
        const stream = this.#find(requireBytes(frame.payload, 8));
        stream?.ended();
        return;
      }
      case PING:
        if (requireBytes(frame.payload, 4).readUInt32BE(0) % 2 === 1)
          await this.send(controlFrame(PING, 0, [frame.payload.readUInt32BE(0)]));
        return;
      default:
        // SETTINGS, WINDOW_UPDATE, GOAWAY and what later versions may add need no answer.
        return;
    }
  }

  async #deliver(stream: SpdyStream, bytes: Buffer, fin: boolean): Promise<void> {
    // A connection that is not read does not notice that its client is gone; a write does.
    const probe = setInterval(() => void this.send(controlFrame(PING, 0, [PROBE_ID])).catch(() => {}), this.#probeIntervalMs);
    try {
      await stream.incoming.push(bytes);
    } finally {
      clearInterval(probe);
    }
    if (fin) stream.remoteEnd();
  }

  #find(payload: Buffer): SpdyStream | undefined {
    return this.#streams.get(payload.readUInt32BE(0) & 0x7fff_ffff);
  }

  async #open(flags: number, payload: Buffer): Promise<void> {
    const id = requireBytes(payload, 10).readUInt32BE(0) & 0x7fff_ffff;
    const headers = await this.#codec.decode(payload.subarray(10));
    if (id % 2 === 0 || id <= this.#lastStreamId) throw spdyError(`stream ${id} opened after stream ${this.#lastStreamId}`);
    this.#lastStreamId = id;
    const stream = new SpdyStream(this, id, headers);
    if (this.#streams.size >= MAX_STREAMS || this.#transport.writableEnded) {
      await this.send(controlFrame(RST_STREAM, 0, [id, REFUSED_STREAM]));
      return;
    }
    this.#streams.set(id, stream);
    // The reply precedes whatever the stream's taker writes.
    const reply = await this.#codec.encode(new Map());
    await this.send(controlFrame(SYN_REPLY, 0, [id], reply));
    if ((flags & FLAG_FIN) !== 0) stream.remoteEnd();
    if (!this.#onStream(stream)) await stream.reset(REFUSED_STREAM);
  }
}

function requireBytes(payload: Buffer, count: number): Buffer {
  if (payload.length < count) throw spdyError(`a control frame of ${payload.length} bytes, want at least ${count}`);
  return payload;
}
