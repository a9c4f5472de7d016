import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";

import { messageOf } from "../lib/coded-error.ts";
import type { Log } from "../lib/log.ts";
import { MetricsError } from "./errors.ts";
import type { PodMetrics } from "./metrics.ts";
import type { MetricsOptions } from "./options.ts";

/** Of a request's head; the body is none. */
const REQUEST_TIMEOUT_MS = 10_000;

/** Serves `GET /metrics` until it is disposed of. */
export async function serveMetrics(
  options: MetricsOptions,
  modules: { readonly metrics: PodMetrics; readonly log: Log },
): Promise<AsyncDisposable> {
  const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS });
  server.on("request", (request, response) => void answer(modules, request, response));
  await listen(server, options);
  return {
    async [Symbol.asyncDispose]() {
      const { promise, resolve } = Promise.withResolvers<void>();
      server.close(() => resolve());
      server.closeAllConnections();
      await promise;
    },
  };
}

async function listen(server: Server, { address, port }: MetricsOptions): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen({ host: address, port }, resolve);
  try {
    await promise;
  } catch (error) {
    throw new MetricsError(
      { code: "ERR_LISTEN", address, port },
      `metrics: cannot listen on ${address} port ${port} (${messageOf(error)}): choose another metrics.address or metrics.port`,
      { cause: error },
    );
  }
}

/** Never rejects. */
async function answer(
  { metrics, log }: { readonly metrics: PodMetrics; readonly log: Log },
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (request.method !== "GET" || request.url?.split("?", 1)[0] !== "/metrics") {
    response.writeHead(404, { "content-type": "text/plain" }).end("only GET /metrics is served here\n");
    return;
  }
  try {
    const text = await metrics.render();
    response.writeHead(200, { "content-type": metrics.contentType }).end(text);
  } catch (error) {
    log.error("metrics could not be collected", {}, error);
    response.writeHead(500, { "content-type": "text/plain" }).end("the metrics could not be collected: the daemon's log has the cause\n");
  }
}
