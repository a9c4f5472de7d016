import { PodServiceService, type PortForwardInput, type PortForwardOutput } from "../../api/gen/aurae/pod/v0/pod.ts";
import type { DuplexCall } from "../agent/duplex.ts";
import { getPod, readySandbox } from "./lookup.ts";
import type { Runtime } from "./runtime.ts";

/** A connection to a port of a pod's own loopback. */
export class PodConnection implements Disposable {
  readonly #call: DuplexCall<PortForwardInput, PortForwardOutput>;

  constructor(call: DuplexCall<PortForwardInput, PortForwardOutput>) {
    this.#call = call;
  }

  /** Resolves when the pod takes more, or is gone. */
  write(bytes: Buffer): Promise<void> {
    return this.#call.write({ input: { $case: "data", value: bytes } });
  }

  /** Half-close. */
  end(): Promise<void> {
    return this.#call.write({ input: { $case: "halfClose", value: {} } });
  }

  /** What the pod sends until it half-closes. Throws `AgentError` when nothing listens or the connection breaks. */
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

/** Dials a port of a READY pod; whether something listens there is told by `incoming`. */
export function connectToPod(
  runtime: Runtime,
  target: { readonly podId: string; readonly port: number },
  options: { readonly signal: AbortSignal; readonly requestId: string },
): PodConnection {
  const pod = getPod(runtime, target.podId);
  readySandbox(pod);
  const call = pod.agent.duplex(PodServiceService.portForward, options);
  void call.write({ input: { $case: "dial", value: { port: target.port } } });
  return new PodConnection(call);
}
