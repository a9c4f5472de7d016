import type { ChildProcessWithoutNullStreams } from "node:child_process";
import { spawn } from "node:child_process";
import { join } from "node:path";

import type { Container } from "./container.ts";
import { unary } from "./cri-client.ts";
import type { Node } from "./node.ts";
import type { Pod } from "./pod.ts";
import { childEnvironment, peersDir } from "./settings.ts";

/** As `streaming-client -protocol` names them. */
export type ProcessProtocol = "spdy" | "spdy-v1" | "spdy-v2" | "spdy-v3" | "spdy-v4" | "websocket" | "websocket-v4" | "fallback";
export type ForwardProtocol = "spdy" | "tunnel";

export interface ProcessOptions {
  readonly protocol: ProcessProtocol;
  readonly stdin?: boolean;
  /** Default true without a terminal. */
  readonly stderr?: boolean;
  /** Windows, `WIDTHxHEIGHT`: one at the start, the next with each SIGWINCH. Left out: no terminal. */
  readonly sizes?: string;
}

/** What a bulk command did; it fails unless every byte came back. */
export interface Report {
  readonly whole: number;
  readonly bytes: number;
  readonly hash: string;
  readonly millis: number;
}

/** `e2e/streaming-client`, made of the libraries of kubectl: a process for each session. */
export class StreamingClient {
  readonly #node: Node;
  readonly #caFile: string | undefined;

  constructor(node: Node, options: { /** Authority of the server's certificate. */ readonly caFile?: string } = {}) {
    this.#node = node;
    this.#caFile = options.caFile;
  }

  async execUrl(container: Container, cmd: readonly string[], options: Partial<ProcessOptions>): Promise<string> {
    const { runtime } = this.#node.clients;
    const { stdin = false, sizes } = options;
    const tty = sizes !== undefined;
    const { stderr = !tty } = options;
    return (await unary(runtime, runtime.exec, { containerId: container.id, cmd: [...cmd], stdin, stdout: true, stderr, tty })).url;
  }

  /** For `echo`, whose sessions ask for no stderr. */
  async echoUrl(container: Container, cmd: readonly string[] = ["/bin/cat"]): Promise<string> {
    return await this.execUrl(container, cmd, { stdin: true, stderr: false });
  }

  async exec(container: Container, cmd: readonly string[], options: ProcessOptions): Promise<Session> {
    return this.#session(await this.execUrl(container, cmd, options), options);
  }

  async attach(container: Container, options: ProcessOptions): Promise<Session> {
    const { runtime } = this.#node.clients;
    const { stdin = false, sizes } = options;
    const tty = sizes !== undefined;
    const { url } = await unary(runtime, runtime.attach, { containerId: container.id, stdin, stdout: true, stderr: !tty, tty });
    return this.#session(url, options);
  }

  async forwardUrl(pod: Pod, ports: readonly number[] = []): Promise<string> {
    const { runtime } = this.#node.clients;
    return (await unary(runtime, runtime.portForward, { podSandboxId: pod.id, port: [...ports] })).url;
  }

  /** Sessions of a command that gives back its input, all open at once. */
  async echo(urls: readonly string[], options: { readonly protocol: ProcessProtocol; readonly bytes: number }): Promise<Report> {
    const session = this.#start("echo", options.protocol, "-bytes", String(options.bytes));
    session.child.stdin.end(`${urls.join("\n")}\n`);
    return await session.report();
  }

  /** Connections to a port of the pod where a server gives back what it gets. */
  async forward(
    pod: Pod,
    options: {
      readonly protocol: ForwardProtocol;
      readonly port: number;
      readonly connections: number;
      readonly parallel: number;
      readonly bytes: number;
    },
  ): Promise<Report> {
    const { protocol, ...numbers } = options;
    const flags = Object.entries(numbers).flatMap(([name, value]) => [`-${name}`, String(value)]);
    return await this.#start("forward", protocol, "-url", await this.forwardUrl(pod), ...flags).report();
  }

  #session(url: string, { protocol, stdin = false, sizes }: ProcessOptions): Session {
    const terminal = sizes === undefined ? [] : ["-tty", "-sizes", sizes];
    return this.#start("exec", protocol, "-url", url, ...(stdin ? ["-stdin"] : []), ...terminal);
  }

  #start(command: string, protocol: string, ...flags: readonly string[]): Session {
    const authority = this.#caFile === undefined ? [] : ["-ca", this.#caFile];
    const program = join(peersDir(), "bin", "streaming-client");
    return new Session(spawn(program, [command, "-protocol", protocol, ...authority, ...flags], { env: childEnvironment() }));
  }
}

/** A running client. */
export class Session {
  readonly child: ChildProcessWithoutNullStreams;
  stdout = "";
  stderr = "";
  readonly #closed = Promise.withResolvers<number>();

  constructor(child: ChildProcessWithoutNullStreams) {
    this.child = child;
    child.stdout.on("data", (chunk: Buffer) => (this.stdout += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (this.stderr += chunk.toString()));
    child.stdin.on("error", () => {});
    child.once("error", (error) => this.#closed.reject(error));
    child.once("close", (code) => this.#closed.resolve(code ?? 255));
  }

  /** Its exit code: the process's, or 125 when the session failed. */
  end(): Promise<number> {
    return this.#closed.promise;
  }

  /** The caller states the shape; a client that failed is an error in its own words. */
  async report(): Promise<Report> {
    const code = await this.end();
    if (code !== 0) throw new Error(`streaming-client: exit code ${code}: ${this.stderr.trim()}`);
    return JSON.parse(this.stdout) as Report;
  }
}
