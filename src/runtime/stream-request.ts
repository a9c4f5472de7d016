import { invalid } from "./errors.ts";
import { getPod, getRunningContainer, readySandbox } from "./lookup.ts";
import type { Runtime } from "./runtime.ts";

/** Which streams of a process the client wants. */
export interface WantedStreams {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
}

export type ExecStreamRequest = {
  readonly kind: "exec";
  readonly containerId: string;
  readonly command: readonly string[];
  readonly terminal: boolean;
} & WantedStreams;

export type AttachStreamRequest = { readonly kind: "attach"; readonly containerId: string; readonly terminal: boolean } & WantedStreams;

export interface PortForwardStreamRequest {
  readonly kind: "portforward";
  readonly podId: string;
  /** Ports that WebSocket clients get channels for; others name theirs on each stream. */
  readonly ports: readonly number[];
}

/** What a client may connect for. */
export type StreamRequest = ExecStreamRequest | AttachStreamRequest | PortForwardStreamRequest;

/** The streaming server, as the RPCs see it. */
export interface StreamUrls {
  /** An address that serves the request once, soon. Throws `ERR_TOO_MANY_STREAMS`. */
  register(request: StreamRequest): string;
}

/** Checks an exec before its client connects. */
export function prepareExec(runtime: Runtime, request: Omit<ExecStreamRequest, "kind">): ExecStreamRequest {
  if (request.command.length === 0) throw invalid("cmd", "must hold at least the program to run");
  checkWanted(request);
  return { kind: "exec", ...request, containerId: getRunningContainer(runtime, request.containerId).id };
}

/** Checks an attach before its client connects. Whether there is a terminal was decided when the container was made. */
export function prepareAttach(runtime: Runtime, request: Omit<AttachStreamRequest, "kind">): AttachStreamRequest {
  checkWanted(request);
  const container = getRunningContainer(runtime, request.containerId);
  return { kind: "attach", ...request, containerId: container.id };
}

export function preparePortForward(runtime: Runtime, request: Omit<PortForwardStreamRequest, "kind">): PortForwardStreamRequest {
  const pod = getPod(runtime, request.podId);
  readySandbox(pod);
  for (const port of request.ports) {
    if (port < 1 || port > 65_535) throw invalid("port", `${port} is no port: want 1 to 65535`);
  }
  return { kind: "portforward", podId: pod.id, ports: request.ports };
}

function checkWanted(request: WantedStreams & { readonly terminal: boolean }): void {
  if (request.terminal && request.stderr) throw invalid("stderr", "a terminal has no stderr of its own: leave it out together with tty");
  if (!request.stdin && !request.stdout && !request.stderr) throw invalid("stdin", "ask for at least one of stdin, stdout and stderr");
}
