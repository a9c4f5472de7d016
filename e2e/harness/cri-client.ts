import type { CallOptions, Client, ClientReadableStream, ClientUnaryCall, ServiceError } from "@grpc/grpc-js";
import { credentials, Metadata } from "@grpc/grpc-js";

import { ImageServiceClient, RuntimeServiceClient } from "../../api/gen/cri/v1/api.ts";
import { slowness } from "./settings.ts";

export interface CriClients extends Disposable {
  readonly runtime: RuntimeServiceClient;
  readonly image: ImageServiceClient;
}

const channelOptions = {
  "grpc.default_authority": "localhost",
  "grpc.max_receive_message_length": 16 * 1024 * 1024,
  // After a daemon's death the next attempt to connect must not wait.
  "grpc.initial_reconnect_backoff_ms": 50,
  "grpc.min_reconnect_backoff_ms": 50,
  "grpc.max_reconnect_backoff_ms": 200,
  "grpc.use_local_subchannel_pool": 1,
};

export function connectCri(socketPath: string): CriClients {
  const runtime = new RuntimeServiceClient(`unix://${socketPath}`, credentials.createInsecure(), channelOptions);
  const image = new ImageServiceClient(`unix://${socketPath}`, credentials.createInsecure(), channelOptions);
  return {
    runtime,
    image,
    [Symbol.dispose]() {
      runtime.close();
      image.close();
    },
  };
}

type UnaryMethod<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: Partial<CallOptions>,
  callback: (error: ServiceError | null, response: Response) => void,
) => ClientUnaryCall;

export interface CallLimits {
  /** Default 2 minutes, as the kubelet's, and longer on a slow host. */
  readonly timeoutMs?: number;
}

/** One unary call as a promise: `unary(client, client.version, request)`. */
export async function unary<Request, Response>(
  client: Client,
  method: UnaryMethod<Request, Response>,
  request: Request,
  limits: CallLimits = {},
): Promise<Response> {
  const { promise, resolve, reject } = Promise.withResolvers<Response>();
  const deadline = Date.now() + (limits.timeoutMs ?? 120_000 * slowness());
  method.call(client, request, new Metadata(), { deadline }, (error, response) => {
    if (error === null) resolve(response);
    else reject(error);
  });
  return await promise;
}

/** Ends a server stream that a test no longer reads; the cancellation that follows is no error. */
export function cancelStream<T>(stream: ClientReadableStream<T>): void {
  stream.on("error", () => {});
  stream.cancel();
}
