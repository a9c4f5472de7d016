import type { WebSocket } from "ws";

import type { AttachStreamRequest, ExecStreamRequest } from "../runtime/stream-request.ts";
import { ByteQueue } from "./byte-queue.ts";
import { type Channels, parseSizes } from "./channels.ts";
import { IdleTimer } from "./idle-timer.ts";
import { type SessionContext, serveProcess } from "./process-session.ts";
import { type Outcome, statusDocument, statusText } from "./status.ts";
import { WebSocketChannels } from "./websocket-channels.ts";

const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
const ERROR = 3;
const RESIZE = 4;
/** v5: the second byte names the channel that ends. */
const CLOSE = 255;

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
  await client.close();
  return outcome;
}

class WebSocketClient implements Channels {
  readonly stdin: ByteQueue | undefined;
  readonly sizes: Channels["sizes"];
  readonly #channels: WebSocketChannels;
  readonly #sizeBytes = new ByteQueue();
  readonly #wanted: { readonly stdout: boolean; readonly stderr: boolean };

  constructor(
    websocket: WebSocket,
    request: ExecStreamRequest | AttachStreamRequest,
    parts: { readonly onActivity: () => void; readonly probeIntervalMs: number },
  ) {
    this.#channels = new WebSocketChannels(websocket, { onMessage: (channel, bytes) => this.#take(channel, bytes), ...parts });
    this.#wanted = { stdout: request.stdout, stderr: request.stderr && !request.terminal };
    this.stdin = request.stdin ? new ByteQueue() : undefined;
    this.sizes = request.terminal ? parseSizes(this.#sizeBytes) : undefined;
    this.gone.addEventListener("abort", () => this.#discard(), { once: true });
  }

  get gone(): AbortSignal {
    return this.#channels.gone;
  }

  /** Old clients wait for a message before they send. */
  async greet(request: ExecStreamRequest | AttachStreamRequest): Promise<void> {
    const lowest = request.stdout ? STDOUT : this.#wanted.stderr ? STDERR : ERROR;
    await this.#channels.send(lowest, Buffer.alloc(0)).catch(() => {});
  }

  async write(stream: "stdout" | "stderr", bytes: Buffer): Promise<void> {
    if (this.#wanted[stream]) await this.#channels.send(stream === "stdout" ? STDOUT : STDERR, bytes);
  }

  async finish(outcome: Outcome): Promise<void> {
    const version = this.#channels.protocol.slice(0, 3);
    const text = version === "v4." || version === "v5." ? statusDocument(outcome) : statusText(outcome);
    if (text !== "") await this.#channels.send(ERROR, Buffer.from(text));
  }

  /** What the client still sends goes nowhere. */
  async close(): Promise<void> {
    this.#discard();
    await this.#channels.close();
  }

  async #take(channel: number, bytes: Buffer): Promise<void> {
    if (channel === STDIN) await this.stdin?.push(bytes);
    else if (channel === RESIZE && this.sizes !== undefined) await this.#sizeBytes.push(bytes);
    else if (channel === CLOSE && bytes[0] === STDIN && this.#channels.protocol === "v5.channel.k8s.io") this.stdin?.end();
  }

  #discard(): void {
    this.stdin?.discard();
    this.#sizeBytes.discard();
  }
}
