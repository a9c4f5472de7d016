import { chmodSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { createConnection } from "node:net";
import { dirname } from "node:path";

import { Server, ServerCredentials } from "@grpc/grpc-js";

import { ImageServiceService, RuntimeServiceService } from "../../api/gen/cri/v1/api.ts";
import type { Edge } from "./adapter.ts";
import { ServerError } from "./errors.ts";
import { imageService, runtimeService } from "./services.ts";

/** What CRI's clients use for both directions. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;
/** How long calls under way may take to end when the daemon stops. */
const DRAIN_TIMEOUT_MS = 10_000;

/** Serves both CRI services on a unix socket that only root may open. A stale socket is taken over; one that answers is refused. */
export async function serve(socketPath: string, edge: Edge): Promise<AsyncDisposable> {
  await mkdir(dirname(socketPath), { recursive: true, mode: 0o755 });
  await takeOver(socketPath);
  const server = new Server({
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
  });
  server.addService(RuntimeServiceService, runtimeService(edge));
  server.addService(ImageServiceService, imageService(edge));
  // Nobody but root for the moment between bind and chmod, too.
  const umask = process.umask(0o077);
  try {
    await bind(server, socketPath);
  } finally {
    process.umask(umask);
  }
  chmodSync(socketPath, 0o600);
  return { [Symbol.asyncDispose]: () => drain(server, socketPath) };
}

function bind(server: Server, socketPath: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.bindAsync(`unix:${socketPath}`, ServerCredentials.createInsecure(), (error) => {
    if (error === null) resolve();
    else
      reject(
        new ServerError({ code: "ERR_LISTEN", socketPath }, `cannot listen on unix://${socketPath}: ${error.message}`, { cause: error }),
      );
  });
  return promise;
}

/** Removes a socket that nobody listens on. */
async function takeOver(socketPath: string): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const probe = createConnection(socketPath);
  probe.once("connect", () => resolve(true));
  probe.once("error", () => resolve(false));
  const answered = await promise;
  probe.destroy();
  if (answered) {
    throw new ServerError(
      { code: "ERR_SOCKET_IN_USE", socketPath },
      `unix://${socketPath} is in use by another process: stop it or choose another --listen`,
    );
  }
  await rm(socketPath, { force: true });
}

/** New calls are refused, calls under way end by themselves or are cut after the drain time. */
async function drain(server: Server, socketPath: string): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(() => server.forceShutdown(), DRAIN_TIMEOUT_MS);
  server.tryShutdown(() => resolve());
  await promise;
  clearTimeout(timer);
  await rm(socketPath, { force: true });
}
