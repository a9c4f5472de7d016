import { PodServiceService, type PortForwardInput, type PortForwardOutput } from "../../api/gen/aurae/pod/v0/pod.ts";
import type { DuplexCall } from "../agent/duplex.ts";
import type { PortStream } from "../agent/port-stream.ts";
import { getPod, readySandbox } from "./lookup.ts";
import type { Runtime } from "./runtime.ts";

/** A connection to a port of a pod's own loopback. */
export interface PodConnection extends Disposable {
  /** Resolves when the pod takes more, or is gone. */
  write(bytes: Buffer): Promise<void>;
  /** Half-close. */
  end(): Promise<void>;
  /** What the pod sends until both directions have ended. Throws `AgentError` when nothing listens or the connection breaks. */
  incoming(onEnd: () => Promise<void>): AsyncGenerator<Buffer, void, void>;
}

/** Dials a port of a READY pod. Throws `AgentError` when nothing listens there, or lets `incoming` tell it. */
export async function connectToPod(
  runtime: Runtime,
  target: { readonly podId: string; readonly port: number },
  options: { readonly signal: AbortSignal; readonly requestId: string },
): Promise<PodConnection> {
  const pod = getPod(runtime, target.podId);
  readySandbox(pod);
  const stream = await pod.agent.openPort(target.port, options.signal);
  if (stream !== undefined) return new StreamConnection(stream);
  const call = pod.agent.duplex(PodServiceService.portForward, options);
  void call.write({ input: { $case: "dial", value: { port: target.port } } });
  return new CallConnection(call);
}

/** On a socket of its own: into a flat pod. */
class StreamConnection implements PodConnection {
  readonly #stream: PortStream;

  constructor(stream: PortStream) {
    this.#stream = stream;
  }

  write(bytes: Buffer): Promise<void> {
    return this.#stream.write(bytes);
  }

  async end(): Promise<void> {
    this.#stream.end();
  }

  async *incoming(onEnd: () => Promise<void>): AsyncGenerator<Buffer, void, void> {
    for await (const output of this.#stream.outputs()) {
      if (output.kind === "data") yield output.bytes;
      else await onEnd();
    }
  }

  [Symbol.dispose](): void {
    this.#stream[Symbol.dispose]();
  }
}

/** As a call of two streams: into a guest. */
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
