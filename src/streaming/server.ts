import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer, type Server as TlsServer } from "node:https";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";

import { v4 as uuid } from "uuid";

import { messageOf } from "../lib/coded-error.ts";
import type { Log } from "../lib/log.ts";
import { isLoopback } from "../lib/loopback.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { StreamRequest, StreamUrls } from "../runtime/stream-request.ts";
import { StreamingError } from "./errors.ts";
import { describe, type KeyPair, KeyPairWatch, readKeyPair } from "./key-pair.ts";
import { PORT_FORWARD_PROTOCOLS, PROCESS_PROTOCOLS } from "./negotiation.ts";
import {
  DRAIN_TIMEOUT_MS,
  IDLE_TIMEOUT_MS,
  MAX_SESSIONS,
  PROBE_INTERVAL_MS,
  STREAM_CREATION_TIMEOUT_MS,
  type StreamingOptions,
} from "./options.ts";
import type { SessionContext } from "./process-session.ts";
import { serveWebSocket } from "./serve-websocket.ts";
import { servePortForwardOverSpdy } from "./spdy-port-forward.ts";
import { serveProcessOverSpdy } from "./spdy-process.ts";
import { Tokens } from "./tokens.ts";
import { type Refusal, refuse, switchToSpdy } from "./upgrade.ts";

const RETRY_AFTER_SECONDS = 5;
/** Of a request's head; the body is none. */
const REQUEST_TIMEOUT_MS = 10_000;
/** For telling clients that the daemon stops. */
const FAREWELL_MS = 2_000;

export interface StreamingServer extends StreamUrls, AsyncDisposable {
  /** Clients being served. */
  readonly openSessions: number;
}

/** The listener behind kubectl exec, attach and port-forward. The token in a URL is the only authority. Throws `ERR_LISTEN`, `ERR_TLS_FILES`. */
export async function openStreaming(
  options: StreamingOptions,
  modules: { readonly runtime: Runtime; readonly log: Log; readonly nowMs?: () => number },
): Promise<StreamingServer> {
  const pair = options.tls === undefined ? undefined : await readKeyPair(options.tls);
  const streaming = new Streaming(options, { ...modules, server: makeServer(pair), scheme: pair === undefined ? "http" : "https" });
  await streaming.listen();
  if (pair !== undefined) streaming.follow(pair);
  return streaming;
}

/** HTTP/1.1 alone, also with TLS: later versions know no upgrade. */
function makeServer(pair: KeyPair | undefined): Server | TlsServer {
  const timeouts = { requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS };
  if (pair === undefined) return createServer(timeouts);
  return createTlsServer({
    ...timeouts,
    ...pair,
    handshakeTimeout: REQUEST_TIMEOUT_MS,
    minVersion: "TLSv1.2",
    ALPNProtocols: ["http/1.1"],
  });
}

interface StreamingModules {
  readonly runtime: Runtime;
  readonly log: Log;
  /** What tokens age by. */
  readonly nowMs?: () => number;
  readonly server: Server | TlsServer;
  readonly scheme: "http" | "https";
}

class Streaming implements StreamingServer {
  readonly #options: StreamingOptions;
  readonly #runtime: Runtime;
  readonly #log: Log;
  readonly #server: Server | TlsServer;
  readonly #scheme: string;
  readonly #tokens: Tokens;
  readonly #sessions = new Map<Duplex, Promise<void>>();
  readonly #closing = new AbortController();
  #keyPair: KeyPairWatch | undefined;
  #draining = false;
  #baseUrl = "";

  constructor(options: StreamingOptions, modules: StreamingModules) {
    this.#options = options;
    this.#runtime = modules.runtime;
    this.#log = modules.log;
    this.#tokens = new Tokens(modules.nowMs);
    this.#server = modules.server;
    this.#scheme = modules.scheme;
    this.#server.on("connection", (socket: Socket) => refuseStrangers(socket));
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
        `streaming: cannot listen on ${address} port ${port} (${messageOf(error)}): choose another streaming.address, or port 0`,
        { cause: error },
      );
    }
    const bound = this.#server.address();
    const boundPort = typeof bound === "object" && bound !== null ? bound.port : port;
    this.#baseUrl = `${this.#scheme}://${address.includes(":") ? `[${address}]` : address}:${boundPort}`;
  }

  /** Serves `pair`, and each that takes its place. Sessions that are open keep theirs. */
  follow(pair: KeyPair): void {
    const { tls } = this.#options;
    const server = this.#server;
    if (tls === undefined || !("setSecureContext" in server)) return;
    this.#log.info("streaming: serving TLS", describe(pair));
    this.#keyPair = new KeyPairWatch(tls, pair, { log: this.#log, onChange: (next) => server.setSecureContext(next) });
  }

  get openSessions(): number {
    return this.#sessions.size;
  }

  register(request: StreamRequest): string {
    return `${this.#baseUrl}/${request.kind}/${this.#tokens.issue(request)}`;
  }

  /** Sessions may end by themselves for a while; then each client is told, and exec'd processes are given up. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#keyPair?.[Symbol.dispose]();
    this.#draining = true;
    const { promise: closed, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    await this.#sessionsEnd(this.#options.drainTimeoutMs ?? DRAIN_TIMEOUT_MS);
    this.#closing.abort(new Error("the daemon is shutting down"));
    await this.#sessionsEnd(FAREWELL_MS);
    for (const socket of this.#sessions.keys()) socket.destroy();
    this.#server.closeAllConnections();
    await Promise.allSettled(this.#sessions.values());
    await closed;
  }

  /** Until all that are open have ended, or time is up. */
  async #sessionsEnd(timeoutMs: number): Promise<void> {
    const timer = new AbortController();
    const timeout = delay(timeoutMs, undefined, { signal: timer.signal }).catch(() => {});
    await Promise.race([Promise.allSettled(this.#sessions.values()), timeout]);
    timer.abort();
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
    if (this.#draining) return { status: 503, text: "the daemon is shutting down" };
    const maxSessions = this.#options.maxSessions ?? MAX_SESSIONS;
    if (this.#sessions.size >= maxSessions) {
      return { status: 429, headers: [["Retry-After", String(RETRY_AFTER_SECONDS)]], text: `${maxSessions} streams are open` };
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
    if (/^websocket$/i.test(request.headers.upgrade ?? "")) return await serveWebSocket(request, socket, found, { context, timeouts });
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

/**
 * What comes to a loopback address from elsewhere comes from a pod: with `route_localnet`, which host ports of CNI's portmap set on the
 * bridge, the kernel lets it through.
 */
function refuseStrangers(socket: Socket): void {
  if (!isLoopback(socket.remoteAddress ?? "")) socket.destroy();
}
