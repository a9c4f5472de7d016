import type { WebSocket } from "ws";

import type { PortForwardStreamRequest } from "../runtime/stream-request.ts";
import { ByteQueue } from "./byte-queue.ts";
import { forwardPort } from "./forward.ts";
import { IdleTimer } from "./idle-timer.ts";
import type { SessionContext } from "./process-session.ts";
import { WebSocketChannels } from "./websocket-channels.ts";

/** The channel's number is a byte, or a character of ASCII. */
export const MAX_PORTS = { binary: 128, base64: 39 } as const;

/** One port of the request: its data channel has twice its index as number, and the error channel follows. */
interface Forwarded {
  readonly port: number;
  readonly data: number;
  readonly error: number;
  readonly incoming: ByteQueue;
}

/**
 * Serves the old port-forward: two channels and one connection for each port of the request. The protocol has no half-close, so the end of what
 * a port sends is the end of its connection, and the end of all of them that of the WebSocket.
 */
export async function servePortForwardOverWebSocket(
  websocket: WebSocket,
  request: PortForwardStreamRequest,
  parts: { readonly context: SessionContext; readonly idleTimeoutMs: number; readonly probeIntervalMs: number },
): Promise<void> {
  using idle = new IdleTimer(parts.idleTimeoutMs, () => websocket.terminate());
  const all = request.ports.map((port, index): Forwarded => ({ port, data: 2 * index, error: 2 * index + 1, incoming: new ByteQueue() }));
  const channels = new WebSocketChannels(websocket, {
    // What comes on an error channel, or on none of ours, goes nowhere.
    onMessage: async (channel, bytes) => await all.find(({ data }) => data === channel)?.incoming.push(bytes),
    onActivity: () => idle.touch(),
    probeIntervalMs: parts.probeIntervalMs,
  });
  channels.gone.addEventListener("abort", () => discardAll(all), { once: true });
  try {
    for (const forwarded of all) await announce(channels, forwarded);
    await Promise.all(all.map((forwarded) => serveOne(channels, forwarded, { podId: request.podId, context: parts.context })));
  } catch {
    // The client has left.
  }
  discardAll(all);
  await channels.close();
}

function discardAll(all: readonly Forwarded[]): void {
  for (const { incoming } of all) incoming.discard();
}

/** The first message of each channel is its port. */
async function announce(channels: WebSocketChannels, { port, data, error }: Forwarded): Promise<void> {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(port);
  await channels.send(data, bytes);
  await channels.send(error, bytes);
}

async function serveOne(
  channels: WebSocketChannels,
  { port, data, error, incoming }: Forwarded,
  { podId, context }: { readonly podId: string; readonly context: SessionContext },
): Promise<void> {
  const client = {
    incoming,
    gone: channels.gone,
    closed: channels.gone,
    write: (bytes: Buffer) => channels.send(data, bytes),
    end: async () => incoming.end(),
  };
  const problem = await forwardPort(client, { podId, port }, context);
  incoming.discard();
  if (problem !== undefined) await channels.send(error, Buffer.from(problem));
}
