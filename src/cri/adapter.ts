import type { EventEmitter } from "node:events";

import type { handleServerStreamingCall, handleUnaryCall, ServerUnaryCall, ServerWritableStream, sendUnaryData } from "@grpc/grpc-js";
import { Metadata, status } from "@grpc/grpc-js";
import { v4 as uuid } from "uuid";

import { joinSignals, type SignalScope } from "../lib/abort.ts";
import type { Log } from "../lib/log.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { StreamUrls } from "../runtime/stream-request.ts";
import type { Call, StreamingRpc, UnaryRpc } from "./call.ts";
import { idsOf } from "./log-ids.ts";
import { statusOf } from "./status.ts";

/** What the wire edge hands to each call. */
export interface Edge {
  readonly runtime: Runtime;
  readonly streamUrls: StreamUrls;
  readonly log: Log;
  /** Aborts when calls under way must end. */
  readonly shutdown: AbortSignal;
}

/** Turns a function of one request into a grpc-js handler: signal, request id, one log line, status. */
export function unary<Request, Response>(edge: Edge, method: string, rpc: UnaryRpc<Request, Response>): handleUnaryCall<Request, Response> {
  return (grpcCall, respond) => void answerUnary(edge, method, rpc, grpcCall, respond);
}

/** The same for a server stream; backpressure is the client's. */
export function streaming<Request, Response>(
  edge: Edge,
  method: string,
  rpc: StreamingRpc<Request, Response>,
): handleServerStreamingCall<Request, Response> {
  return (grpcCall) => void answerStream(edge, method, rpc, grpcCall);
}

/** Never rejects: every failure is an answer. */
async function answerUnary<Request, Response>(
  edge: Edge,
  method: string,
  rpc: UnaryRpc<Request, Response>,
  grpcCall: ServerUnaryCall<Request, Response>,
  respond: sendUnaryData<Response>,
): Promise<void> {
  using scope = openScope(edge, grpcCall);
  const record = beginRecord(edge, method, grpcCall.request);
  try {
    const response = await rpc(grpcCall.request, callOf(edge, record, scope));
    record.end(response);
    respond(null, response);
  } catch (error) {
    respond(record.fail(error, scope.signal));
  }
}

async function answerStream<Request, Response>(
  edge: Edge,
  method: string,
  rpc: StreamingRpc<Request, Response>,
  grpcCall: ServerWritableStream<Request, Response>,
): Promise<void> {
  using scope = openScope(edge, grpcCall);
  const record = beginRecord(edge, method, grpcCall.request);
  try {
    const messages = rpc(grpcCall.request, callOf(edge, record, scope));
    // At once: a client of a stream that may stay silent for long learns from it that the call was accepted.
    grpcCall.sendMetadata(new Metadata());
    for await (const message of messages) await send(grpcCall, message, scope.signal);
    record.end(undefined);
    grpcCall.end();
  } catch (error) {
    grpcCall.emit("error", record.fail(error, scope.signal));
  }
}

function openScope(edge: Edge, grpcCall: ServerUnaryCall<unknown, unknown> | ServerWritableStream<unknown, unknown>): SignalScope {
  const scope = joinSignals(edge.shutdown);
  // grpc-js reports a passed deadline as a cancellation too.
  const events: EventEmitter = grpcCall;
  events.on("cancelled", () => scope.abort(new DOMException("the client has given up", "AbortError")));
  return scope;
}

function callOf(edge: Edge, record: CallRecord, scope: SignalScope): Call {
  return { runtime: edge.runtime, streamUrls: edge.streamUrls, log: edge.log, requestId: record.requestId, signal: scope.signal };
}

interface CallRecord {
  readonly requestId: string;
  end(response: unknown): void;
  fail(error: unknown, signal: AbortSignal): { code: status; details: string };
}

/** One line per call, at its end. */
function beginRecord(edge: Edge, method: string, request: unknown): CallRecord {
  const requestId = uuid();
  const startMs = performance.now();
  const fields = (code: status, response: unknown) => ({
    method,
    status: status[code],
    durationMs: Math.round((performance.now() - startMs) * 10) / 10,
    requestId,
    ...idsOf(request, response),
  });
  return {
    requestId,
    end: (response) => edge.log.info("cri call", fields(status.OK, response)),
    fail: (error, signal) => {
      const answer = statusOf(error, signal);
      edge.log.warn("cri call", fields(answer.code, undefined), error);
      return answer;
    },
  };
}

function send<Request, Response>(grpcCall: ServerWritableStream<Request, Response>, message: Response, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  if (grpcCall.write(message)) resolve();
  else {
    const abort = () => reject(signal.reason);
    grpcCall.once("drain", () => {
      signal.removeEventListener("abort", abort);
      resolve();
    });
    signal.addEventListener("abort", abort, { once: true });
  }
  return promise;
}
