import type { CallOptions, Client, ClientReadableStream } from "@grpc/grpc-js";
import { Metadata } from "@grpc/grpc-js";

import { type ContainerEventResponse, ContainerEventType } from "../../api/gen/cri/v1/api.ts";
import { cancelStream } from "./cri-client.ts";
import { slowness } from "./settings.ts";
import { waitFor } from "./wait.ts";

type StreamMethod<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: Partial<CallOptions>,
) => ClientReadableStream<Response>;

/** All messages of a stream that ends by itself. */
export async function readStream<Request, Response>(
  client: Client,
  method: StreamMethod<Request, Response>,
  request: Request,
): Promise<Response[]> {
  const stream = method.call(client, request, new Metadata(), { deadline: Date.now() + 30_000 * slowness() });
  return await Array.fromAsync(stream as AsyncIterable<Response>);
}

/** An endless stream that a test listens to; disposing of it cancels it. */
export class OpenStream<Response> implements Disposable {
  readonly messages: Response[] = [];
  readonly #stream: ClientReadableStream<Response>;
  /** Settles with the error that ended the stream. */
  readonly ended: Promise<Error | undefined>;

  private constructor(stream: ClientReadableStream<Response>) {
    this.#stream = stream;
    const { promise, resolve } = Promise.withResolvers<Error | undefined>();
    this.ended = promise;
    stream.on("data", (message: Response) => this.messages.push(message));
    stream.on("error", (error: Error) => resolve(error));
    stream.on("end", () => resolve(undefined));
  }

  /** Resolves when the server has accepted the call. */
  static async open<Request, Response>(
    client: Client,
    method: StreamMethod<Request, Response>,
    request: Request,
  ): Promise<OpenStream<Response>> {
    const stream = method.call(client, request, new Metadata(), {});
    const accepted = Promise.withResolvers<void>();
    stream.once("metadata", () => accepted.resolve());
    const open = new OpenStream<Response>(stream);
    void open.ended.then((error) => accepted.reject(error ?? new Error("the stream ended at once")));
    await accepted.promise;
    return open;
  }

  /** Waits until `count` messages have come. */
  async take(count: number): Promise<readonly Response[]> {
    await waitFor(`${count} messages`, () => this.messages.length >= count);
    return this.messages;
  }

  /** No more is taken from the connection until `resume`. */
  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  [Symbol.dispose](): void {
    cancelStream(this.#stream);
  }
}

const EVENT_KINDS = {
  [ContainerEventType.CONTAINER_CREATED_EVENT]: "created",
  [ContainerEventType.CONTAINER_STARTED_EVENT]: "started",
  [ContainerEventType.CONTAINER_STOPPED_EVENT]: "stopped",
  [ContainerEventType.CONTAINER_DELETED_EVENT]: "deleted",
} as const;

/** `pod created`, `c1 stopped` … by the names of ids. */
export function told(events: readonly ContainerEventResponse[], names: Readonly<Record<string, string>>): string[] {
  return events.map((event) => `${names[event.containerId] ?? event.containerId} ${EVENT_KINDS[event.containerEventType]}`);
}
