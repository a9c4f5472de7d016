import { CodedError } from "../lib/coded-error.ts";

/** What goes wrong on a streaming connection. The client is told by a reset, a status or the end of the connection. */
export type StreamingFact =
  /** The peer broke the protocol; the connection ends. */
  | { readonly code: "ERR_PROTOCOL"; readonly protocol: "spdy" | "websocket" }
  /** The client left, or did nothing for too long. */
  | { readonly code: "ERR_CLIENT_GONE" }
  /** The streams that the request needs did not all appear in time. */
  | { readonly code: "ERR_STREAMS_MISSING" }
  | { readonly code: "ERR_LISTEN"; readonly address: string; readonly port: number }
  /** The certificate or its key cannot be read or used. */
  | { readonly code: "ERR_TLS_FILES"; readonly path: string };

export class StreamingError extends CodedError<StreamingFact> {}

export function spdyError(problem: string): StreamingError {
  return new StreamingError({ code: "ERR_PROTOCOL", protocol: "spdy" }, `SPDY: ${problem}`);
}

export function clientGone(why: string): StreamingError {
  return new StreamingError({ code: "ERR_CLIENT_GONE" }, why);
}
