import type { Log } from "../lib/log.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { StreamUrls } from "../runtime/stream-request.ts";

/** What every RPC acts with. One per call. */
export interface Call {
  readonly runtime: Runtime;
  readonly streamUrls: StreamUrls;
  readonly log: Log;
  /** uuid of the call; travels to auraed and into every log line about it. */
  readonly requestId: string;
  /** Aborts when the client cancels, its deadline passes or the daemon stops for good; and when the call ends. */
  readonly signal: AbortSignal;
}

export type UnaryRpc<Request, Response> = (request: Request, call: Call) => Promise<Response>;

/** Each yielded message carries at least one item. */
export type StreamingRpc<Request, Response> = (request: Request, call: Call) => AsyncIterable<Response>;
