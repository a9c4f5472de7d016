import { type ChildProcess, spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createConnection } from "node:net";

import { terminate } from "../harness/command.ts";
import { unary } from "../harness/cri-client.ts";
import type { Node } from "../harness/node.ts";
import type { Pod, PodOptions } from "../harness/pod.ts";
import { freePort } from "../harness/ports.ts";
import { SpdyClient } from "../harness/spdy-client.ts";
import { waitFor } from "../harness/wait.ts";

const MIB = 1024 * 1024;
/** Sends its bytes to whoever connects. */
const SOURCE_PORT = 9001;
/** Reads as many bytes and tells how many pieces came, without waiting for the client's half-close: not every runtime passes that on. */
const SINK_PORT = 9002;
const PIECE = Buffer.alloc(64 * 1024);

export type Direction = "from the pod" | "to the pod";

/** A pod that sends and takes bytes, and ways to it. */
export class ForwardTarget implements AsyncDisposable {
  readonly #node: Node;
  readonly #pod: Pod;
  readonly #sizeBytes: number;

  private constructor(node: Node, pod: Pod, sizeBytes: number) {
    this.#node = node;
    this.#pod = pod;
    this.#sizeBytes = sizeBytes;
  }

  static async open(node: Node, sizeMib: number, options: PodOptions = {}): Promise<ForwardTarget> {
    const pod = await node.runPod(options);
    const target = new ForwardTarget(node, pod, sizeMib * MIB);
    const source = await pod.start({
      command: ["/bin/nc", "-ll", "-p", String(SOURCE_PORT), "-e", "/bin/dd", "if=/dev/zero", "bs=64k", `count=${sizeMib * 16}`],
    });
    const sink = `exec dd of=/dev/null bs=64k iflag=fullblock count=${sizeMib * 16} 2>&1`;
    await pod.start({ command: ["/bin/nc", "-ll", "-p", String(SINK_PORT), "-e", "/bin/sh", "-c", sink] });
    const listening = [SOURCE_PORT, SINK_PORT].map((port) => `:${port.toString(16).toUpperCase()} `);
    await waitFor("the listeners", async () => {
      const sockets = await source.shell("cat /proc/net/tcp /proc/net/tcp6");
      return listening.every((port) => sockets.includes(port));
    });
    return target;
  }

  /** One connection through PortForward, from the call to the last byte. */
  async forward(direction: Direction): Promise<void> {
    const { runtime } = this.#node.clients;
    const { url } = await unary(runtime, runtime.portForward, { podSandboxId: this.#pod.id, port: [] });
    using client = await SpdyClient.open(url, "portforward.k8s.io");
    const headers = { port: String(direction === "from the pod" ? SOURCE_PORT : SINK_PORT), requestid: "0" };
    let problem = "";
    const error = client.openStream({ streamtype: "error", ...headers }, (bytes) => (problem += bytes.toString()));
    error.end();
    const tally = new Tally(direction, this.#sizeBytes);
    const data = client.openStream({ streamtype: "data", ...headers }, (bytes) => tally.take(bytes));
    if (direction === "to the pod") await this.#pour((bytes) => data.write(bytes));
    // Neither a half-close nor the end is waited for: runtimes differ in how long they take over those.
    await Promise.race([tally.whole, data.ended]);
    if (problem !== "") throw new Error(problem);
    tally.check();
  }

  /** The same through a process that copies between two sockets. */
  async relay(direction: Direction, relay: Relay): Promise<void> {
    const socket = createConnection({ host: "127.0.0.1", port: relay.ports[direction], allowHalfOpen: true, noDelay: true });
    const tally = new Tally(direction, this.#sizeBytes);
    const ended = Promise.withResolvers<void>();
    socket
      .on("data", (bytes: Buffer) => tally.take(bytes))
      .on("end", () => ended.resolve())
      .on("error", ended.reject);
    if (direction === "to the pod") {
      await this.#pour(async (bytes) => {
        if (socket.write(bytes)) return;
        await new Promise((resolve) => socket.once("drain", resolve));
      });
    }
    await Promise.race([tally.whole, ended.promise]);
    socket.destroy();
    tally.check();
  }

  /** socat between the host's loopback and the pod's address, with buffers as large as anybody's here. */
  async startRelay(): Promise<Relay> {
    const { network } = await this.#pod.status();
    const ports = { "from the pod": await freePort(), "to the pod": await freePort() };
    const start = (port: number, target: number) => {
      const addresses = [`TCP-LISTEN:${port},bind=127.0.0.1,reuseaddr,fork,nodelay`, `TCP:${network?.ip}:${target},nodelay`];
      return spawn("socat", ["-b", String(PIECE.length), ...addresses], { stdio: "ignore" });
    };
    const relay = new Relay([start(ports["from the pod"], SOURCE_PORT), start(ports["to the pod"], SINK_PORT)], ports);
    await relay.listening();
    return relay;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#pod[Symbol.asyncDispose]();
  }

  async #pour(write: (bytes: Buffer) => Promise<void>): Promise<void> {
    for (let sent = 0; sent < this.#sizeBytes; sent += PIECE.length) await write(PIECE);
  }
}

export class Relay implements AsyncDisposable {
  readonly ports: Readonly<Record<Direction, number>>;
  readonly #children: readonly ChildProcess[];

  constructor(children: readonly ChildProcess[], ports: Readonly<Record<Direction, number>>) {
    this.#children = children;
    this.ports = ports;
  }

  async listening(): Promise<void> {
    for (const port of Object.values(this.ports)) {
      await waitFor(`socat on port ${port}`, async () => {
        const hex = port.toString(16).toUpperCase().padStart(4, "0");
        return (await readFile("/proc/net/tcp", "utf8")).includes(`0100007F:${hex} 00000000:0000 0A`);
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#children.map(terminate));
  }
}

/** What came: all bytes of the source, or what the sink says. */
class Tally {
  /** Resolves when all is there. */
  readonly whole: Promise<void>;
  readonly #direction: Direction;
  readonly #sizeBytes: number;
  readonly #done = Promise.withResolvers<void>();
  #count = 0;
  #text = "";

  constructor(direction: Direction, sizeBytes: number) {
    this.#direction = direction;
    this.#sizeBytes = sizeBytes;
    this.whole = this.#done.promise;
  }

  take(bytes: Buffer): void {
    this.#count += bytes.length;
    if (this.#count < 100) this.#text += bytes.toString();
    if (this.#arrived === this.#sizeBytes) this.#done.resolve();
  }

  check(): void {
    if (this.#arrived !== this.#sizeBytes) throw new Error(`${this.#arrived} bytes went ${this.#direction}, not ${this.#sizeBytes}`);
  }

  get #arrived(): number {
    if (this.#direction === "from the pod") return this.#count;
    return PIECE.length * Number(/^(\d+)\+0 records in/.exec(this.#text)?.[1] ?? 0);
  }
}
