import type { Duplex } from "node:stream";
import { messageOf } from "../lib/coded-error.ts";
import type { AttachStreamRequest, ExecStreamRequest } from "../runtime/stream-request.ts";
import { type Channels, parseSizes } from "./channels.ts";
import { StreamingError } from "./errors.ts";
import { IdleTimer } from "./idle-timer.ts";
import type { ProcessProtocol } from "./negotiation.ts";
import { type SessionContext, serveProcess } from "./process-session.ts";
import { SpdyConnection } from "./spdy/connection.ts";
import type { SpdyStream } from "./spdy/stream.ts";
import { type Outcome, statusDocument, statusText } from "./status.ts";

interface Timeouts {
  readonly idleTimeoutMs: number;
  readonly streamCreationTimeoutMs: number;
  readonly probeIntervalMs: number;
}

/** Serves an exec or attach over SPDY, from the switch of protocols to the end of the connection. */
export async function serveProcessOverSpdy(
  transport: Duplex,
  request: ExecStreamRequest | AttachStreamRequest,
  parts: { readonly protocol: ProcessProtocol; readonly context: SessionContext; readonly timeouts: Timeouts },
): Promise<Outcome> {
  using idle = new IdleTimer(parts.timeouts.idleTimeoutMs, () => connection.destroy());
  const gathering = new Gathering(expectedTypes(request, parts.protocol));
  const connection = new SpdyConnection(transport, {
    onStream: (stream) => gathering.take(stream),
    onActivity: () => idle.touch(),
    probeIntervalMs: parts.timeouts.probeIntervalMs,
  });
  const running = connection.run();
  // Reported below, when the session has noticed.
  running.catch(() => {});
  const channels = channelsOf(gathering.streams, connection, parts.protocol);
  try {
    await gathering.wait(parts.timeouts.streamCreationTimeoutMs, connection.gone);
    return await serveProcess(request, channels, parts.context);
  } catch (error) {
    // Without a word the client would take the end of its streams for success.
    const outcome: Outcome = { kind: "failure", message: messageOf(error) };
    await channels.finish(outcome).catch(() => {});
    throw error;
  } finally {
    connection.close();
    await running;
  }
}

/** v1 and v2 know no window size. */
function expectedTypes(request: ExecStreamRequest | AttachStreamRequest, protocol: ProcessProtocol): Set<string> {
  const types = new Set(["error"]);
  if (request.stdin) types.add("stdin");
  if (request.stdout) types.add("stdout");
  if (request.stderr && !request.terminal) types.add("stderr");
  if (request.terminal && (protocol === "v4.channel.k8s.io" || protocol === "v3.channel.k8s.io")) types.add("resize");
  return types;
}

/** Collects the streams that a request needs. Others are refused. */
class Gathering {
  readonly #missing: Set<string>;
  /** By type, as they come. */
  readonly streams = new Map<string, SpdyStream>();
  readonly #complete = Promise.withResolvers<void>();

  constructor(expected: ReadonlySet<string>) {
    this.#missing = new Set(expected);
  }

  take(stream: SpdyStream): boolean {
    const type = stream.headers.get("streamtype") ?? "";
    if (!this.#missing.delete(type)) return false;
    this.streams.set(type, stream);
    // Ours to write; a client that writes there must not wait for a reader.
    if (type !== "stdin" && type !== "resize") stream.incoming.discard();
    if (this.#missing.size === 0) this.#complete.resolve();
    return true;
  }

  /** Throws `ERR_STREAMS_MISSING`. */
  wait(timeoutMs: number, gone: AbortSignal): Promise<void> {
    const fail = () =>
      this.#complete.reject(
        new StreamingError(
          { code: "ERR_STREAMS_MISSING" },
          `the client did not open its streams in time: ${[...this.#missing].join(", ")}`,
        ),
      );
    const timer = setTimeout(fail, timeoutMs);
    gone.addEventListener("abort", fail, { once: true });
    if (gone.aborted) fail();
    void this.#complete.promise.catch(() => {}).then(() => clearTimeout(timer));
    return this.#complete.promise;
  }
}

function channelsOf(streams: ReadonlyMap<string, SpdyStream>, connection: SpdyConnection, protocol: ProcessProtocol): Channels {
  return {
    get stdin() {
      return streams.get("stdin")?.incoming;
    },
    get sizes() {
      const bytes = streams.get("resize")?.incoming;
      return bytes === undefined ? undefined : parseSizes(bytes);
    },
    gone: connection.gone,
    write: async (name, bytes) => await streams.get(name)?.write(bytes),
    finish: async (outcome) => {
      await streams.get("stdout")?.end();
      await streams.get("stderr")?.end();
      const text = protocol === "v4.channel.k8s.io" ? statusDocument(outcome) : statusText(outcome);
      const error = streams.get("error");
      await error?.write(Buffer.from(text));
      await error?.end();
    },
  };
}
