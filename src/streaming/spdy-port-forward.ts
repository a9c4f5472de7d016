import type { Duplex } from "node:stream";

import type { PortForwardStreamRequest } from "../runtime/stream-request.ts";
import { forwardPort } from "./forward.ts";
import { IdleTimer } from "./idle-timer.ts";
import type { SessionContext } from "./process-session.ts";
import { SpdyConnection } from "./spdy/connection.ts";
import { CANCEL } from "./spdy/frames.ts";
import type { SpdyStream } from "./spdy/stream.ts";

interface Timeouts {
  readonly idleTimeoutMs: number;
  readonly streamCreationTimeoutMs: number;
  readonly probeIntervalMs: number;
}

interface HalfPair {
  readonly role: "error" | "data";
  readonly stream: SpdyStream;
  readonly timer: NodeJS.Timeout;
}

/** Serves the client connections of one port-forward until the client leaves. */
export async function servePortForwardOverSpdy(
  transport: Duplex,
  request: PortForwardStreamRequest,
  parts: { readonly context: SessionContext; readonly timeouts: Timeouts },
): Promise<void> {
  using idle = new IdleTimer(parts.timeouts.idleTimeoutMs, () => connection.destroy());
  const waiting = new Map<string, HalfPair>();
  const onStream = (stream: SpdyStream): boolean => {
    const role = stream.headers.get("streamtype");
    const port = Number(stream.headers.get("port"));
    if ((role !== "error" && role !== "data") || !Number.isInteger(port) || port < 1 || port > 65_535) return false;
    const key = pairKey(stream, role);
    const other = waiting.get(key);
    if (other === undefined) {
      const drop = () => {
        waiting.delete(key);
        stream.reset(CANCEL).catch(() => {});
      };
      waiting.set(key, { role, stream, timer: setTimeout(drop, parts.timeouts.streamCreationTimeoutMs) });
      return true;
    }
    if (other.role === role) return false;
    waiting.delete(key);
    clearTimeout(other.timer);
    const [error, data] = role === "data" ? [other.stream, stream] : [stream, other.stream];
    void servePair({ error, data }, { podId: request.podId, port }, connection.gone, parts.context);
    return true;
  };
  const connection = new SpdyConnection(transport, {
    onStream,
    onActivity: () => idle.touch(),
    probeIntervalMs: parts.timeouts.probeIntervalMs,
  });
  const stop = () => connection.close();
  parts.context.signal.addEventListener("abort", stop, { once: true });
  try {
    await connection.run();
  } finally {
    parts.context.signal.removeEventListener("abort", stop);
    for (const { timer } of waiting.values()) clearTimeout(timer);
  }
}

/** Clients that give no request id open the error stream right before the data stream. */
function pairKey(stream: SpdyStream, role: "error" | "data"): string {
  const requestId = stream.headers.get("requestid") ?? "";
  return requestId === "" ? `stream ${role === "error" ? stream.id : stream.id - 2}` : `request ${requestId}`;
}

async function servePair(
  pair: { readonly error: SpdyStream; readonly data: SpdyStream },
  target: { readonly podId: string; readonly port: number },
  gone: AbortSignal,
  context: SessionContext,
): Promise<void> {
  const { error, data } = pair;
  // Ours to write; a client that writes there must not wait for a reader.
  error.incoming.discard();
  const client = {
    incoming: data.incoming,
    gone,
    closed: data.closed,
    write: (bytes: Buffer) => data.write(bytes),
    end: () => data.end(),
  };
  const problem = await forwardPort(client, target, context);
  try {
    if (problem !== undefined) await error.write(Buffer.from(problem));
    await data.end();
    await error.end();
    // What the client still sends goes nowhere.
    data.incoming.discard();
  } catch {
    // The client has left.
  }
}
