import { createConnection, type Socket } from "node:net";
import { setTimeout as delay, setImmediate } from "node:timers/promises";

import { Random } from "./random.ts";
import type { Script } from "./script.ts";

/** What a client waits for an answer, and for a server that takes nothing. */
const PATIENCE_MS = 400;
/** What a client that half-closes or waits gives the server to end. */
const FAREWELL_MS = 500;
/** Of a client that sends bit by bit. */
const MAX_BITS = 300;

/** Does what the script says; when it resolves the client has left. Never rejects. */
export async function play(script: Script, url: string): Promise<void> {
  const { hostname, port, pathname } = new URL(url);
  const socket = createConnection({ host: hostname, port: Number(port), allowHalfOpen: true });
  const closed = Promise.withResolvers<void>();
  const answered = Promise.withResolvers<void>();
  socket.on("error", () => {});
  socket.once("close", () => closed.resolve());
  socket.once("end", () => answered.resolve());
  if (script.reads) socket.on("data", () => answered.resolve());
  const head = script.head(pathname);
  if (script.pace === "at once") await send(socket, [Buffer.concat([head, ...script.pieces])]);
  else if (script.pace === "bit by bit") await send(socket, bits(script.seed, Buffer.concat([head, ...script.pieces])));
  else {
    await send(socket, [head]);
    await Promise.race([answered.promise, closed.promise, delay(PATIENCE_MS)]);
    await send(socket, script.pieces);
  }
  await leave(socket, script.ending, closed.promise);
}

/** A server that takes no more for a while has had enough: the rest is left out. */
async function send(socket: Socket, pieces: readonly Buffer[]): Promise<void> {
  for (const piece of pieces) {
    if (socket.destroyed || socket.writableEnded) return;
    if (socket.write(piece)) continue;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const drained = () => resolve(true);
    socket.once("drain", drained).once("close", drained);
    const timer = setTimeout(() => resolve(false), PATIENCE_MS);
    const goesOn = await promise;
    clearTimeout(timer);
    socket.off("drain", drained).off("close", drained);
    if (!goesOn) return;
    await setImmediate();
  }
}

/** Cut anywhere, mostly into small pieces, in the end into large ones. */
function bits(seed: number, bytes: Buffer): Buffer[] {
  const random = new Random(seed);
  const pieces: Buffer[] = [];
  let offset = 0;
  while (offset < bytes.length && pieces.length < MAX_BITS) {
    const end = offset + random.skewed(2000);
    pieces.push(bytes.subarray(offset, end));
    offset = end;
  }
  return [...pieces, bytes.subarray(offset)];
}

async function leave(socket: Socket, ending: Script["ending"], closed: Promise<void>): Promise<void> {
  if (ending === "half-close") socket.end();
  if (ending === "half-close" || ending === "wait") await Promise.race([closed, delay(FAREWELL_MS)]);
  if (ending === "reset") socket.resetAndDestroy();
  else socket.destroy();
  await closed;
}
