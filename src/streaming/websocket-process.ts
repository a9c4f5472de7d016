import type { RawData, WebSocket } from "ws";

import type { AttachStreamRequest, ExecStreamRequest } from "../runtime/stream-request.ts";
import { ByteQueue } from "./byte-queue.ts";
import { type Channels, parseSizes } from "./channels.ts";
import { clientGone } from "./errors.ts";
import { IdleTimer } from "./idle-timer.ts";
import { type SessionContext, serveProcess } from "./process-session.ts";
import { type Outcome, statusDocument, statusText } from "./status.ts";

const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
const ERROR = 3;
const RESIZE = 4;
/** v5: the second byte names the channel that ends. */
const CLOSE = 255;
/** Waiting for the client before the process is read on. */
const MAX_UNSENT_BYTES = 256 * 1024;
const NORMAL_CLOSE = 1000;
const LINGER_MS = 5_000;

/** Serves an exec or attach over the channels of a WebSocket, to the end of the connection. */
export async function serveProcessOverWebSocket(
  websocket: WebSocket,
  request: ExecStreamRequest | AttachStreamRequest,
  parts: { readonly context: SessionContext; readonly idleTimeoutMs: number; readonly probeIntervalMs: number },
): Promise<Outcome> {
  using idle = new IdleTimer(parts.idleTimeoutMs, () => websocket.terminate());
  const client = new WebSocketClient(websocket, request, { onActivity: () => idle.touch(), probeIntervalMs: parts.probeIntervalMs });
  await client.greet(request);
  const outcome = await serveProcess(request, client, parts.context);
  const timer = setTimeout(() => websocket.terminate(), LINGER_MS);
  await client.closed;
  clearTimeout(timer);
  return outcome;
}

class WebSocketClient implements Channels {
  readonly stdin: ByteQueue | undefined;
  readonly sizes: Channels["sizes"];
  readonly #websocket: WebSocket;
  readonly #sizeBytes: ByteQueue;
  readonly #wanted: { readonly stdout: boolean; readonly stderr: boolean };
  readonly #gone = new AbortController();
  readonly #closed = Promise.withResolvers<void>();
  readonly #onActivity: () => void;
  readonly #probeIntervalMs: number;

  constructor(
    websocket: WebSocket,
    request: ExecStreamRequest | AttachStreamRequest,
    parts: { readonly onActivity: () => void; readonly probeIntervalMs: number },
  ) {
    this.#websocket = websocket;
    this.#onActivity = parts.onActivity;
    this.#probeIntervalMs = parts.probeIntervalMs;
    this.#wanted = { stdout: request.stdout, stderr: request.stderr && !request.terminal };
    this.stdin = request.stdin ? new ByteQueue() : undefined;
    this.#sizeBytes = new ByteQueue();
    this.sizes = request.terminal ? parseSizes(this.#sizeBytes) : undefined;
    websocket.on("message", (data, isBinary) => void this.#take(data, isBinary));
    websocket.on("ping", () => this.#onActivity());
    websocket.on("error", () => websocket.terminate());
    websocket.on("close", () => {
      this.#gone.abort(clientGone("the client has closed the connection"));
      this.stdin?.discard();
      this.#sizeBytes.discard();
      this.#closed.resolve();
    });
    websocket.resume();
  }

  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** Old clients wait for a message before they send. */
  async greet(request: ExecStreamRequest | AttachStreamRequest): Promise<void> {
    await this.#send(request.stdout ? STDOUT : this.#wanted.stderr ? STDERR : ERROR, Buffer.alloc(0)).catch(() => {});
  }

  async write(stream: "stdout" | "stderr", bytes: Buffer): Promise<void> {
    if (this.#wanted[stream]) await this.#send(stream === "stdout" ? STDOUT : STDERR, bytes);
  }

  async finish(outcome: Outcome): Promise<void> {
    const version = this.#websocket.protocol.slice(0, 3);
    const text = version === "v4." || version === "v5." ? statusDocument(outcome) : statusText(outcome);
    if (text !== "") await this.#send(ERROR, Buffer.from(text));
    this.#websocket.close(NORMAL_CLOSE);
  }

  async #send(channel: number, bytes: Buffer): Promise<void> {
    this.gone.throwIfAborted();
    this.#onActivity();
    const message = this.#isBase64 ? `${channel}${bytes.toString("base64")}` : Buffer.concat([Buffer.from([channel]), bytes]);
    const { promise, resolve } = Promise.withResolvers<void>();
    // The connection's end calls back as well.
    this.#websocket.send(message, () => resolve());
    if (this.#websocket.bufferedAmount > MAX_UNSENT_BYTES) await promise;
    this.gone.throwIfAborted();
  }

  get #isBase64(): boolean {
    return this.#websocket.protocol.includes("base64.");
  }

  /** The connection is not read while the process lags. */
  async #take(data: RawData, isBinary: boolean): Promise<void> {
    this.#onActivity();
    if (!Buffer.isBuffer(data) || data.length === 0) return;
    const base64 = this.#isBase64 && !isBinary;
    const channel = base64 ? data.readUInt8(0) - 0x30 : data.readUInt8(0);
    const bytes = base64 ? Buffer.from(data.toString("latin1", 1), "base64") : data.subarray(1);
    if (channel === CLOSE && this.#websocket.protocol === "v5.channel.k8s.io") {
      if (bytes[0] === STDIN) this.stdin?.end();
      return;
    }
    const queue = channel === STDIN ? this.stdin : channel === RESIZE ? this.#sizeBytes : undefined;
    if (queue === undefined) return;
    this.#websocket.pause();
    // A connection that is not read does not notice that its client is gone; a write does.
    const probe = setInterval(() => this.#websocket.ping(undefined, undefined, () => {}), this.#probeIntervalMs);
    await queue.push(bytes);
    clearInterval(probe);
    this.#websocket.resume();
  }
}
