import { type ChildProcess, spawn } from "node:child_process";
import { Socket } from "node:net";

import { HostError } from "./errors.ts";

/** From `auraed dial`; a connection comes along unless there is an error. */
interface Answer {
  readonly id: number;
  readonly error?: string;
}

interface Waiting {
  readonly resolve: (socket: Socket) => void;
  readonly reject: (error: HostError) => void;
  readonly port: number;
}

/**
 * Connections into network namespaces, which Node cannot enter: `auraed dial` opens them and hands them over as child processes of Node do.
 * It is started for the first one, and again should it end. Disposing ends it; connections go on.
 */
export class Dialer implements Disposable {
  readonly #auraedPath: string;
  readonly #waiting = new Map<number, Waiting>();
  #child: ChildProcess | undefined;
  #nextId = 1;

  constructor(auraedPath: string) {
    this.#auraedPath = auraedPath;
  }

  /**
   * Connects to a port of the namespace's loopback, by IPv4 or else IPv6; an empty path is the host's namespace. Each direction ends by
   * itself. Throws `ERR_DIAL` when nothing listens there.
   */
  async dial(netnsPath: string, port: number, { signal }: { readonly signal: AbortSignal }): Promise<Socket> {
    const { promise, resolve, reject } = Promise.withResolvers<Socket>();
    const giveUp = () => reject(dialError(port, "given up"));
    if (signal.aborted) giveUp();
    const id = this.#nextId++;
    const child = (this.#child ??= this.#start());
    this.#waiting.set(id, { resolve, reject, port });
    signal.addEventListener("abort", giveUp, { once: true });
    child.send({ id, netns: netnsPath, port }, (error) => {
      if (error !== null) reject(dialError(port, error.message));
    });
    try {
      return await promise;
    } finally {
      signal.removeEventListener("abort", giveUp);
      this.#waiting.delete(id);
    }
  }

  [Symbol.dispose](): void {
    this.#lose(this.#child, "the daemon stops");
  }

  #start(): ChildProcess {
    // What the channel is for the child is standard input for auraed.
    const child = spawn(this.#auraedPath, ["dial"], { stdio: ["ipc", "ignore", "inherit"], env: {}, cwd: "/" });
    child.unref();
    child.channel?.unref();
    child.on("message", (answer, handle) => this.#take(answer as unknown as Answer, handle));
    child.on("error", (error) => this.#lose(child, error.message));
    child.once("exit", () => this.#lose(child, "auraed dial has ended"));
    return child;
  }

  #take({ id, error }: Answer, handle: unknown): void {
    const waiting = this.#waiting.get(id);
    const socket = handle instanceof Socket ? handle : undefined;
    if (waiting === undefined) socket?.destroy();
    else if (socket === undefined) waiting.reject(dialError(waiting.port, error ?? "no connection came"));
    else {
      socket.allowHalfOpen = true;
      waiting.resolve(socket);
    }
  }

  #lose(child: ChildProcess | undefined, why: string): void {
    if (child === undefined || child !== this.#child) return;
    this.#child = undefined;
    if (child.connected) child.disconnect();
    for (const { reject, port } of this.#waiting.values()) reject(dialError(port, why));
  }
}

function dialError(port: number, why: string): HostError {
  return new HostError({ code: "ERR_DIAL", port }, `nothing answers on port ${port} of the pod: ${why}`);
}
