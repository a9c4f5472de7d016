import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { createServer, type Socket } from "node:net";
import { pipeline } from "node:stream/promises";
import { z } from "zod";

import { sleep, untilAborted, withDeadline } from "../lib/abort.ts";
import { SAVED_STATE_FD } from "./description.ts";
import { templateError } from "./errors.ts";
import { parseAnswer, QmpClient } from "./qmp.ts";

interface Wait {
  readonly signal: AbortSignal;
}

/** Memory that is a file of the host, as the system disk is, has no part in the state: it is there on the other side too. */
const CAPABILITIES = { capabilities: [{ capability: "x-ignore-shared", state: true }] };
/** No brake: it is read from the next process. */
const BANDWIDTH = { "max-bandwidth": 2 ** 40 };
const SAVE_TIMEOUT_MS = 30_000;
const LOOK_AGAIN_MS = 3;

const statusSchema = z.object({ status: z.string().max(64) });

/**
 * Stops a machine and writes its state, whole and durable, to `statePath`. Throws ERR_VM_TEMPLATE, and as QMP does. QEMU can write to a program,
 * which its sandbox forbids, to a descriptor, which Node cannot hand over, or to a socket.
 */
export async function saveMachine(
  paths: { readonly qmpPath: string; readonly socketPath: string; readonly statePath: string },
  wait: Wait,
): Promise<void> {
  using deadline = withDeadline(SAVE_TIMEOUT_MS, wait.signal);
  const { signal } = deadline;
  using qmp = await QmpClient.connect(paths.qmpPath, { signal });
  await qmp.execute("stop", {}, { signal });
  await qmp.execute("migrate-set-capabilities", CAPABILITIES, { signal });
  await qmp.execute("migrate-set-parameters", BANDWIDTH, { signal });
  await using receiver = await receive(paths.socketPath, signal);
  await qmp.execute("migrate", { uri: `unix:${paths.socketPath}` }, { signal });
  const socket = await untilAborted(receiver.connected, signal);
  await pipeline(socket, createWriteStream(paths.statePath, { flags: "wx", mode: 0o600, flush: true }), { signal });
  await migrated(qmp, signal);
}

/** Waits for one connection. */
async function receive(socketPath: string, signal: AbortSignal): Promise<AsyncDisposable & { readonly connected: Promise<Socket> }> {
  const server = createServer();
  const { promise: connected, resolve } = Promise.withResolvers<Socket>();
  server.once("connection", resolve).listen(socketPath);
  await once(server, "listening", { signal });
  return { connected, [Symbol.asyncDispose]: () => new Promise((closed) => server.close(() => closed())) };
}

/** The stream has ended: QEMU says whether that was all. */
async function migrated(qmp: QmpClient, signal: AbortSignal): Promise<void> {
  for (;;) {
    const { status } = parseAnswer(statusSchema, await qmp.execute("query-migrate", {}, { signal }), "query-migrate");
    if (status === "completed") return;
    if (status !== "active" && status !== "device" && status !== "setup") throw templateError(`QEMU could not save its machine: ${status}`);
    await sleep(LOOK_AGAIN_MS, signal);
  }
}

/** Lets a machine go on that waits for its state on `SAVED_STATE_FD`. QEMU ends, and says why, when it cannot use it. */
export async function restoreMachine(qmp: QmpClient, { signal }: Wait): Promise<void> {
  await qmp.execute("migrate-set-capabilities", CAPABILITIES, { signal });
  await qmp.execute("migrate-incoming", { uri: `fd:${SAVED_STATE_FD}` }, { signal });
  for (;;) {
    const { status } = parseAnswer(statusSchema, await qmp.execute("query-status", {}, { signal }), "query-status");
    // As it was when it was saved.
    if (status === "paused") break;
    if (status !== "inmigrate") throw templateError(`a restored machine is ${status.slice(0, 32)}`);
    await sleep(LOOK_AGAIN_MS, signal);
  }
  await qmp.execute("cont", {}, { signal });
}
