import { joinSignals } from "../lib/abort.ts";
import { messageOf } from "../lib/coded-error.ts";
import { connectToPod, type PodConnection } from "../runtime/pod-connection.ts";
import { StreamingError } from "./errors.ts";
import type { SessionContext } from "./process-session.ts";

/** The client's side of one forwarded connection, whatever the transport. */
export interface ForwardClient {
  /** Ends with the client's half-close. */
  readonly incoming: AsyncIterable<Buffer>;
  /** Aborts when the client has left altogether. */
  readonly gone: AbortSignal;
  /** Aborts when both directions of this connection are over; with a `StreamingError` when the client has broken it off. */
  readonly closed: AbortSignal;
  /** Resolves when the client keeps up. */
  write(bytes: Buffer): Promise<void>;
  /** Half-close. */
  end(): Promise<void>;
}

/** Copies both ways until both have ended. Never rejects: a problem is returned for the client's error stream. */
export async function forwardPort(
  client: ForwardClient,
  target: { readonly podId: string; readonly port: number },
  context: SessionContext,
): Promise<string | undefined> {
  using scope = joinSignals(context.signal, client.gone);
  // What a client that has half-closed sent before is still on its way to the pod.
  const onClosed = () => {
    if (client.closed.reason instanceof StreamingError) scope.abort(client.closed.reason);
  };
  client.closed.addEventListener("abort", onClosed, { once: true });
  if (client.closed.aborted) onClosed();
  try {
    using pod = await connectToPod(context.runtime, target, { signal: scope.signal, requestId: context.requestId });
    void feedPod(client, pod);
    for await (const bytes of pod.incoming(() => client.end())) await client.write(bytes);
    return undefined;
  } catch (error) {
    if (scope.signal.aborted) return undefined;
    return problemOf(error, target.port);
  }
}

async function feedPod(client: ForwardClient, pod: PodConnection): Promise<void> {
  for await (const bytes of client.incoming) await pod.write(bytes);
  if (!client.gone.aborted) await pod.end();
}

/** In auraed's own words: a port where nothing listens says so. */
function problemOf(error: unknown, port: number): string {
  const cause = error instanceof Error ? error.cause : undefined;
  const details = typeof cause === "object" && cause !== null && "details" in cause ? String(cause.details) : messageOf(error);
  return `cannot forward to port ${port}: ${details}`;
}
