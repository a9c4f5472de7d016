import type { Socket } from "node:net";

import { PodServiceService, type PortForwardInput, type PortForwardOutput } from "../../api/gen/aurae/pod/v0/pod.ts";
import type { DuplexCall } from "../agent/duplex.ts";
import { readAhead } from "../lib/read-ahead.ts";
import { WriteBatch } from "../lib/write-batch.ts";
import { getPod, readySandbox } from "./lookup.ts";
import type { Runtime } from "./runtime.ts";

/** Of what is read ahead, and of what is written and not taken yet. */
const MAX_WAITING_BYTES = 256 * 1024;

/** A connection to a port of a pod's own loopback. */
export interface PodConnection extends Disposable {
  /** Resolves when the pod takes more, or is gone. */
  write(bytes: Buffer): Promise<void>;
  /** Half-close. */
  end(): Promise<void>;
  /** What the pod sends until both directions have ended. Throws when nothing listens or the connection breaks. */
  incoming(onEnd: () => Promise<void>): AsyncGenerator<Buffer, void, void>;
}

/** Dials a port of a READY pod. Throws when nothing listens there, or lets `incoming` tell it. */
export async function connectToPod(
  runtime: Runtime,
  target: { readonly podId: string; readonly port: number },
  options: { readonly signal: AbortSignal; readonly requestId: string },
): Promise<PodConnection> {
  const pod = getPod(runtime, target.podId);
  const { guest, namespaces } = readySandbox(pod);
  if (guest === undefined) return new SocketConnection(await runtime.host.dial(namespaces.network, target.port, options), options);
  const call = pod.agent.duplex(PodServiceService.portForward, options);
  void call.write({ input: { $case: "dial", value: { port: target.port } } });
  return new CallConnection(call);
}

/** Into a flat pod. */
export class SocketConnection implements PodConnection {
  readonly #socket: Socket;
  readonly #batch: WriteBatch;
  readonly #signal: AbortSignal;
  readonly #giveUp = (): void => void this.#socket.destroy();
  readonly #over = Promise.withResolvers<void>();

  constructor(socket: Socket, { signal }: { readonly signal: AbortSignal }) {
    this.#socket = socket;
    this.#batch = new WriteBatch(socket, MAX_WAITING_BYTES);
    this.#signal = signal;
    // Told by whoever reads.
    socket.on("error", () => {}).once("close", () => this.#over.resolve());
    signal.addEventListener("abort", this.#giveUp, { once: true });
    if (signal.aborted) this.#giveUp();
  }

  async write(bytes: Buffer): Promise<void> {
    if (!this.#socket.writable) return;
    this.#batch.add(bytes);
    await this.#batch.ready();
  }

  async end(): Promise<void> {
    this.#socket.end(() => this.#over.resolve());
  }

  async *incoming(onEnd: () => Promise<void>): AsyncGenerator<Buffer, void, void> {
    yield* readAhead(this.#socket, MAX_WAITING_BYTES);
    await onEnd();
    await this.#over.promise;
    if (this.#socket.errored !== null) throw this.#socket.errored;
  }

  [Symbol.dispose](): void {
    this.#signal.removeEventListener("abort", this.#giveUp);
    this.#socket.destroy();
  }
}

/** Into a guest, to which there is one stream that carries all calls. */
class CallConnection implements PodConnection {
  readonly #call: DuplexCall<PortForwardInput, PortForwardOutput>;

  constructor(call: DuplexCall<PortForwardInput, PortForwardOutput>) {
    this.#call = call;
  }

  write(bytes: Buffer): Promise<void> {
    return this.#call.write({ input: { $case: "data", value: bytes } });
  }

  end(): Promise<void> {
    return this.#call.write({ input: { $case: "halfClose", value: {} } });
  }

  async *incoming(onEnd: () => Promise<void>): AsyncGenerator<Buffer, void, void> {
    for await (const { output } of this.#call.outputs()) {
      if (output?.$case === "data") yield output.value;
      else if (output?.$case === "halfClose") await onEnd();
    }
  }

  [Symbol.dispose](): void {
    this.#call[Symbol.dispose]();
  }
}
