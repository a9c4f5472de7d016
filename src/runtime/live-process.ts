import { PodServiceService, type StreamInput, type StreamOutput } from "../../api/gen/aurae/pod/v0/pod.ts";
import type { DuplexCall } from "../agent/duplex.ts";
import { getRunningContainer } from "./lookup.ts";
import type { Runtime } from "./runtime.ts";
import type { AttachStreamRequest, ExecStreamRequest } from "./stream-request.ts";

/** In cells; both above 0. */
export interface TerminalSize {
  readonly width: number;
  readonly height: number;
}

export type ProcessOutput =
  | { readonly kind: "stdout" | "stderr"; readonly bytes: Buffer }
  /** The last one of an exec. An attach ends without. */
  | { readonly kind: "exit"; readonly code: number };

interface CallOptions {
  /** Gives the process up: its terminal hangs up, its stdin closes, and after a grace period an exec'd one is killed. */
  readonly signal: AbortSignal;
  readonly requestId: string;
}

/** The live streams of a process in a container. */
export class LiveProcess implements Disposable {
  readonly #call: DuplexCall<StreamInput, StreamOutput>;

  constructor(call: DuplexCall<StreamInput, StreamOutput>) {
    this.#call = call;
  }

  /** Resolves when the process takes more, or is gone. */
  writeStdin(bytes: Buffer): Promise<void> {
    return this.#call.write({ input: { $case: "stdin", value: bytes } });
  }

  closeStdin(): Promise<void> {
    return this.#call.write({ input: { $case: "stdinClose", value: {} } });
  }

  resize(size: TerminalSize): Promise<void> {
    return this.#call.write({ input: { $case: "resize", value: size } });
  }

  /** At the consumer's pace. Throws `AgentError` when the process could not be started or was lost. */
  async *outputs(): AsyncGenerator<ProcessOutput, void, void> {
    for await (const { output } of this.#call.outputs()) {
      if (output?.$case === "stdout" || output?.$case === "stderr") yield { kind: output.$case, bytes: output.value };
      else if (output?.$case === "exitCode") yield { kind: "exit", code: output.value };
    }
  }

  [Symbol.dispose](): void {
    this.#call[Symbol.dispose]();
  }
}

/** Starts a command in a RUNNING container. */
export function openExec(
  runtime: Runtime,
  request: ExecStreamRequest,
  options: CallOptions & { readonly size: TerminalSize | undefined },
): LiveProcess {
  const container = getRunningContainer(runtime, request.containerId);
  const call = container.pod.agent.duplex(PodServiceService.exec, options);
  const { terminal, stdin, stdout, stderr } = request;
  const start = { containerId: container.id, command: [...request.command], terminal, stdin, stdout, stderr, size: options.size };
  void call.write({ input: { $case: "start", value: start } });
  return new LiveProcess(call);
}

/** Joins the streams of a RUNNING container. */
export function openAttach(runtime: Runtime, request: AttachStreamRequest, options: CallOptions): LiveProcess {
  const container = getRunningContainer(runtime, request.containerId);
  const call = container.pod.agent.duplex(PodServiceService.attach, options);
  const { stdin, stdout, stderr } = request;
  void call.write({ input: { $case: "attach", value: { containerId: container.id, stdin, stdout, stderr } } });
  return new LiveProcess(call);
}
