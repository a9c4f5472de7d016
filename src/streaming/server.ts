import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";

import { v4 as uuid } from "uuid";
import { createWebSocketStream } from "ws";

import { unreachable } from "../lib/coded-error.ts";
import type { Log } from "../lib/log.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { StreamRequest, StreamUrls } from "../runtime/stream-request.ts";
import { StreamingError } from "./errors.ts";
import { negotiate, PORT_FORWARD_PROTOCOLS, PROCESS_PROTOCOLS } from "./negotiation.ts";
import { IDLE_TIMEOUT_MS, PROBE_INTERVAL_MS, STREAM_CREATION_TIMEOUT_MS, type StreamingOptions } from "./options.ts";
import type { SessionContext } from "./process-session.ts";
import { servePortForwardOverSpdy } from "./spdy-port-forward.ts";
import { serveProcessOverSpdy } from "./spdy-process.ts";
import { Tokens } from "./tokens.ts";
import { acceptWebSocket, offeredSubprotocols, PROCESS_SUBPROTOCOLS, TUNNEL_SUBPROTOCOL } from "./websocket.ts";
import { serveProcessOverWebSocket } from "./websocket-process.ts";

const MAX_SESSIONS = 1000;
const RETRY_AFTER_SECONDS = 5;
/** Of a request's head; the body is none. */
const REQUEST_TIMEOUT_MS = 10_000;
/** How long a client that was refused may take to close. */
const REFUSED_LINGER_MS = 1_000;

/** An answer in place of the switch of protocols. */
interface Refusal {
  readonly status: number;
  readonly headers?: readonly (readonly [name: string, value: string])[];
  readonly text: string;
}

export interface StreamingServer extends StreamUrls, AsyncDisposable {
  /** Clients being served. */
  readonly openSessions: number;
}

/** The listener behind kubectl exec, attach and port-forward. The token in a URL is the only authority. */
export async function openStreaming(
  options: StreamingOptions,
  modules: { readonly runtime: Runtime; readonly log: Log },
): Promise<StreamingServer> {
  const streaming = new Streaming(options, modules);
  await streaming.listen();
  return streaming;
}

class Streaming implements StreamingServer {
  readonly #options: StreamingOptions;
  readonly #runtime: Runtime;
  readonly #log: Log;
  readonly #server: Server;
  readonly #tokens = new Tokens();
  readonly #sessions = new Map<Duplex, Promise<void>>();
  readonly #closing = new AbortController();
  #baseUrl = "";

  constructor(options: StreamingOptions, modules: { readonly runtime: Runtime; readonly log: Log }) {
    this.#options = options;
    this.#runtime = modules.runtime;
    this.#log = modules.log;
    this.#server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS });
    this.#server.on("request", (request, response) => this.#answer(request, response));
    this.#server.on("upgrade", (request, stream, head) => this.#upgrade(request, stream, head));
  }

  async listen(): Promise<void> {
    const { address, port } = this.#options;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#server.once("error", reject);
    this.#server.listen({ host: address, port }, resolve);
    try {
      await promise;
    } catch (error) {
      throw new StreamingError(
        { code: "ERR_LISTEN", address, port },
        `streaming: cannot listen on ${address} port ${port}: choose another address or port 0`,
        { cause: error },
      );
    }
    const bound = this.#server.address();
    const boundPort = typeof bound === "object" && bound !== null ? bound.port : port;
    this.#baseUrl = `http://${address.includes(":") ? `[${address}]` : address}:${boundPort}`;
  }

  get openSessions(): number {
    return this.#sessions.size;
  }

  register(request: StreamRequest): string {
    return `${this.#baseUrl}/${request.kind}/${this.#tokens.issue(request)}`;
  }

  /** Ends every session; exec'd processes are given up. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    this.#closing.abort(new Error("the daemon is shutting down"));
    for (const socket of this.#sessions.keys()) socket.destroy();
    this.#server.closeAllConnections();
    await Promise.allSettled(this.#sessions.values());
    await promise;
  }

  /** What does not ask for a switch of protocols gets no stream. Its token is used up all the same. */
  #answer(request: IncomingMessage, response: ServerResponse): void {
    const found = this.#find(request);
    const refusal = "status" in found ? found : { status: 400, text: "ask for an upgrade to SPDY/3.1 or WebSocket" };
    for (const [name, value] of refusal.headers ?? []) response.appendHeader(name, value);
    response.writeHead(refusal.status, { "content-type": "text/plain", connection: "close" }).end(`${refusal.text}\n`);
  }

  #upgrade(request: IncomingMessage, stream: Duplex, head: Buffer): void {
    const { socket } = request;
    for (const emitter of [socket, stream]) emitter.on("error", () => {});
    // Node puts a stream of its own before the socket when a body comes first, which no client's upgrade has.
    if (stream !== socket) return refuse(socket, { status: 400, text: "a request to upgrade has no body" });
    socket.setNoDelay(true);
    const found = this.#find(request);
    if ("status" in found) return refuse(socket, found);
    const context: SessionContext = { runtime: this.#runtime, requestId: uuid(), signal: this.#closing.signal };
    if (head.length > 0) socket.unshift(head);
    const session = this.#serve(request, socket, found, context);
    this.#sessions.set(socket, session);
    void session.finally(() => this.#sessions.delete(socket));
  }

  #find(request: IncomingMessage): StreamRequest | Refusal {
    const [, kind, token, ...rest] = (request.url ?? "").replace(/\?.*$/, "").split("/");
    if (request.method !== "GET" && request.method !== "POST")
      return { status: 405, headers: [["Allow", "GET, POST"]], text: "use GET or POST" };
    if (this.#sessions.size >= MAX_SESSIONS) {
      return { status: 429, headers: [["Retry-After", String(RETRY_AFTER_SECONDS)]], text: `${MAX_SESSIONS} streams are open` };
    }
    const found = token === undefined || rest.length > 0 ? undefined : this.#tokens.redeem(token);
    if (found === undefined || found.kind !== kind) return { status: 404, text: "no such stream: an address works once and for a minute" };
    return found;
  }

  /** Never rejects. */
  async #serve(request: IncomingMessage, socket: Socket, found: StreamRequest, context: SessionContext): Promise<void> {
    const startMs = performance.now();
    const ids = found.kind === "portforward" ? { podId: found.podId } : { containerId: found.containerId };
    const fields = { kind: found.kind, requestId: context.requestId, ...ids };
    try {
      const outcome = await this.#speak(request, socket, found, context);
      this.#log.info("stream", { ...fields, outcome, durationMs: Math.round(performance.now() - startMs) });
    } catch (error) {
      this.#log.warn("stream", { ...fields, outcome: "broken", durationMs: Math.round(performance.now() - startMs) }, error);
    } finally {
      socket.destroySoon();
    }
  }

  async #speak(request: IncomingMessage, socket: Socket, found: StreamRequest, context: SessionContext): Promise<string> {
    const timeouts = {
      idleTimeoutMs: this.#options.idleTimeoutMs ?? IDLE_TIMEOUT_MS,
      streamCreationTimeoutMs: this.#options.streamCreationTimeoutMs ?? STREAM_CREATION_TIMEOUT_MS,
      probeIntervalMs: this.#options.probeIntervalMs ?? PROBE_INTERVAL_MS,
    };
    if (/^websocket$/i.test(request.headers.upgrade ?? "")) return await speakWebSocket(request, socket, found, { context, timeouts });
    if (!/^spdy\/3\.1$/i.test(request.headers.upgrade ?? "")) {
      refuse(socket, { status: 400, text: "this server upgrades to SPDY/3.1 and WebSocket" });
      return "refused";
    }
    if (found.kind === "portforward") {
      if (switchToSpdy(request, socket, PORT_FORWARD_PROTOCOLS) === undefined) return "refused";
      await servePortForwardOverSpdy(socket, found, { context, timeouts });
      return "success";
    }
    const protocol = switchToSpdy(request, socket, PROCESS_PROTOCOLS);
    if (protocol === undefined) return "refused";
    return (await serveProcessOverSpdy(socket, found, { protocol, context, timeouts })).kind;
  }
}

async function speakWebSocket(
  request: IncomingMessage,
  socket: Socket,
  found: StreamRequest,
  parts: {
    readonly context: SessionContext;
    readonly timeouts: { readonly idleTimeoutMs: number; readonly streamCreationTimeoutMs: number; readonly probeIntervalMs: number };
  },
): Promise<string> {
  const supported: readonly string[] = found.kind === "portforward" ? [TUNNEL_SUBPROTOCOL] : PROCESS_SUBPROTOCOLS;
  const offered = offeredSubprotocols(request);
  // The oldest clients of exec and attach name none.
  const chosen = offered.length === 0 && found.kind !== "portforward" ? "" : offered.find((name) => supported.includes(name));
  if (chosen === undefined) {
    refuse(socket, { status: 403, text: `none of the sub-protocols offered is known here, want one of ${supported.join(", ")}` });
    return "refused";
  }
  const websocket = await acceptWebSocket(request, socket, chosen);
  if (websocket === undefined) return "refused";
  if (found.kind !== "portforward") {
    return (await serveProcessOverWebSocket(websocket, found, { context: parts.context, ...parts.timeouts })).kind;
  }
  await servePortForwardOverSpdy(createWebSocketStream(websocket), found, parts);
  return "success";
}

/** Answers the upgrade. Undefined: it was refused. */
function switchToSpdy<Protocol extends string>(
  request: IncomingMessage,
  socket: Socket,
  supported: readonly Protocol[],
): Protocol | undefined {
  const negotiated = negotiate(request, supported);
  switch (negotiated.kind) {
    case "agreed": {
      const lines = ["Connection: Upgrade", "Upgrade: SPDY/3.1", `X-Stream-Protocol-Version: ${negotiated.protocol}`];
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join("\r\n")}\r\n\r\n`);
      return negotiated.protocol;
    }
    case "none offered":
      refuse(socket, { status: 400, text: "X-Stream-Protocol-Version is missing: name the protocols you speak" });
      return undefined;
    case "none known":
      refuse(socket, {
        status: 403,
        headers: supported.map((name) => ["X-Accepted-Stream-Protocol-Versions", name] as const),
        text: `none of the protocols offered is known here, want one of ${supported.join(", ")}`,
      });
      return undefined;
    default:
      return unreachable(negotiated);
  }
}

/** An HTTP answer on a socket that http.Server has handed over. */
function refuse(socket: Duplex, refusal: Refusal): void {
  const text = `${refusal.text}\n`;
  const headers = [
    ...(refusal.headers ?? []),
    ["Connection", "close"],
    ["Content-Type", "text/plain"],
    ["Content-Length", String(text.length)],
  ];
  const lines = headers.map(([name, value]) => `${name}: ${value}`).join("\r\n");
  socket.end(`HTTP/1.1 ${refusal.status} ${STATUS_CODES[refusal.status] ?? ""}\r\n${lines}\r\n\r\n${text}`);
  // To the client's end: an earlier destroy would reset the connection under the answer.
  socket.resume();
  const timer = setTimeout(() => socket.destroy(), REFUSED_LINGER_MS);
  socket.once("close", () => clearTimeout(timer));
}
