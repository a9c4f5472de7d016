import { Agent, type Dispatcher, request } from "undici";

import { isTimeout } from "../../lib/abort.ts";
import { ImageError } from "../errors.ts";
import type { TlsOptions } from "./hosts.ts";

export interface HttpRequest {
  readonly method: "GET" | "HEAD" | "POST";
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly tls: TlsOptions;
  readonly signal: AbortSignal;
}

export interface HttpResponse {
  readonly status: number;
  /** By lower-case name. */
  header(name: string): string | undefined;
  /** Read to the end or `discard`; errors are ours. */
  body(): AsyncGenerator<Buffer>;
  discard(): Promise<void>;
}

export interface TransportOptions {
  /** Bounds the wait for headers and between two pieces of a body. */
  readonly noProgressTimeoutMs: number;
}

const CONNECT_TIMEOUT_MS = 15_000;
/** More than that of an unwanted body is not worth reading for the sake of the connection. */
const DISCARD_BYTES = 256 << 10;

/** HTTP with a connection pool per set of TLS options. Follows no redirects and retries nothing: its users know what may travel where. */
export class Transport implements AsyncDisposable {
  readonly #options: TransportOptions;
  readonly #agents = new Map<string, Agent>();

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  /** Rejects with `ERR_REGISTRY_UNAVAILABLE` when there is no answer, with `ERR_PULL_ABORTED` when the signal aborts. */
  async send(call: HttpRequest): Promise<HttpResponse> {
    const { method, url, headers, body, signal } = call;
    if (signal.aborted) throw abortedError(signal);
    try {
      const response = await request(url, {
        method,
        headers: { "user-agent": "aurae-cri", "accept-encoding": "identity", ...headers },
        ...(body === undefined ? {} : { body }),
        dispatcher: this.#agentOf(call.tls),
        signal,
      });
      return wrap(response, url, signal);
    } catch (error) {
      throw translate(error, url, signal);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const agents = [...this.#agents.values()];
    this.#agents.clear();
    await Promise.all(agents.map((agent) => agent.destroy()));
  }

  #agentOf(tls: TlsOptions): Agent {
    const key = JSON.stringify(tls);
    const known = this.#agents.get(key);
    if (known !== undefined) return known;
    const agent = new Agent({
      headersTimeout: this.#options.noProgressTimeoutMs,
      bodyTimeout: this.#options.noProgressTimeoutMs,
      connect: {
        timeout: Math.min(CONNECT_TIMEOUT_MS, this.#options.noProgressTimeoutMs),
        rejectUnauthorized: !tls.skipVerify,
        ...(tls.ca.length === 0 ? {} : { ca: [...tls.ca] }),
        ...(tls.client.length === 0 ? {} : { cert: tls.client.map((pair) => pair.cert), key: tls.client.map((pair) => pair.key) }),
      },
    });
    this.#agents.set(key, agent);
    return agent;
  }
}

function wrap(response: Dispatcher.ResponseData, url: URL, signal: AbortSignal): HttpResponse {
  return {
    status: response.statusCode,
    header(name) {
      const value = response.headers[name];
      return Array.isArray(value) ? value.join(", ") : value;
    },
    async *body() {
      try {
        for await (const chunk of response.body) yield chunk as Buffer;
      } catch (error) {
        throw translate(error, url, signal);
      } finally {
        response.body.destroy();
      }
    },
    async discard() {
      await response.body.dump({ limit: DISCARD_BYTES, signal }).catch(() => {});
    },
  };
}

/** The whole body, refused beyond `maxBytes`. */
export async function readBody(response: HttpResponse, maxBytes: number, registry: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of response.body()) {
    sizeBytes += chunk.length;
    if (sizeBytes > maxBytes) {
      throw new ImageError({ code: "ERR_REGISTRY_RESPONSE", registry }, `registry ${registry}: the answer has more than ${maxBytes} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

export function abortedError(signal: AbortSignal): ImageError {
  const timedOut = isTimeout(signal.reason);
  const why = timedOut ? "its deadline passed" : "it was cancelled";
  return new ImageError({ code: "ERR_PULL_ABORTED", timedOut }, `the pull was stopped: ${why}`, { cause: signal.reason });
}

function translate(error: unknown, url: URL, signal: AbortSignal): unknown {
  if (signal.aborted) return abortedError(signal);
  if (error instanceof ImageError || !(error instanceof Error)) return error;
  const registry = url.host;
  const detail = "code" in error ? `${error.message} (${String(error.code)})` : error.message;
  return new ImageError({ code: "ERR_REGISTRY_UNAVAILABLE", registry, status: 0 }, `registry ${registry}: no answer: ${detail}`, {
    cause: error,
  });
}
