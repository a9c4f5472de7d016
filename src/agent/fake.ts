import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createConnection, createServer, type Server as NetServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

import { Server, ServerCredentials, type ServerDuplexStream, type ServerUnaryCall, type sendUnaryData, status } from "@grpc/grpc-js";

import {
  type ExecSyncRequest,
  type ExecSyncResponse,
  PodServiceService,
  type PortForwardInput,
  type PortForwardOutput,
  type StreamInput,
  type StreamOutput,
} from "../../api/gen/aurae/pod/v0/pod.ts";
import { HostError } from "../host/errors.ts";
import { Agent } from "./agent.ts";

/** What a process or a server in the fake pod does with its client. */
export const BEHAVIOURS = [
  /** Ends at once. */
  "end",
  /** Gives back what it gets, to its end. */
  "echo",
  /** Sends 512 KiB, then ends; reads nothing. */
  "flood",
  /** Reads nothing and says nothing until it is given up; on a connection, where that cannot be seen, for a while. */
  "deaf",
  /** Says something, then breaks off with an error. */
  "break",
  /** Cannot be had at all. */
  "refuse",
] as const;
export type Behaviour = (typeof BEHAVIOURS)[number];

const DEAF_MS = 200;
const RESET_AFTER_MS = 20;
const FLOOD_CHUNKS = 32;
const FLOOD_CHUNK_BYTES = 16 * 1024;

/** A process or connection as behaviours see it. */
interface Peer {
  readonly behaviour: Behaviour;
  /** Ends with the client's half-close, and when the call is over. */
  readonly input: AsyncIterable<Buffer>;
  send(bytes: Buffer): Promise<void>;
  /** As long as a deaf one is deaf. */
  wait(): Promise<void>;
  succeed(): void;
  fail(code: status, details: string): void;
}

/**
 * An auraed without containers, on a unix socket of its own, and what listens in its pod. A command of one word is a behaviour; so is a port, by its place in `BEHAVIOURS`
 * from 1 on; an attached container echoes. ExecSync succeeds at once.
 */
export class BehavingAuraed implements AsyncDisposable {
  readonly agent: Agent;
  readonly #server: Server;
  /** What listens in the pod. */
  readonly #ports = new Map<Behaviour, NetServer>();
  readonly #dir: string;
  #openCalls = 0;

  private constructor(parts: { readonly server: Server; readonly dir: string; readonly socketPath: string }) {
    this.#server = parts.server;
    this.#dir = parts.dir;
    this.agent = new Agent(parts.socketPath);
  }

  static async start(): Promise<BehavingAuraed> {
    const dir = await mkdtemp(join(tmpdir(), "fake-auraed-"));
    const socketPath = join(dir, "auraed.sock");
    const server = new Server();
    const fake = new BehavingAuraed({ server, dir, socketPath });
    await fake.#listen();
    const { exec, attach, portForward, execSync } = PodServiceService;
    const process = (call: ServerDuplexStream<StreamInput, StreamOutput>) => fake.#serve(call, processPeer);
    server.addService(
      { exec, attach, portForward, execSync },
      {
        exec: process,
        attach: process,
        portForward: (call: ServerDuplexStream<PortForwardInput, PortForwardOutput>) => fake.#serve(call, connectionPeer),
        execSync: (_: ServerUnaryCall<ExecSyncRequest, ExecSyncResponse>, answer: sendUnaryData<ExecSyncResponse>) =>
          answer(null, { stdout: Buffer.alloc(0), stderr: Buffer.alloc(0), exitCode: 0 }),
      },
    );
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.bindAsync(`unix:${socketPath}`, ServerCredentials.createInsecure(), (error) => (error === null ? resolve() : reject(error)));
    await promise;
    return fake;
  }

  /** As the host's side does for a flat pod. */
  async dial(port: number): Promise<Socket> {
    const address = this.#ports.get(BEHAVIOURS[port - 1] ?? "refuse")?.address();
    if (typeof address !== "object" || address === null) throw new HostError({ code: "ERR_DIAL", port }, "nothing listens");
    const socket = createConnection({ host: "127.0.0.1", port: address.port, allowHalfOpen: true, noDelay: true });
    await once(socket, "connect");
    return socket;
  }

  /** Streaming calls and connections that are not over. */
  get openCalls(): number {
    return this.#openCalls;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.agent[Symbol.dispose]();
    this.#server.forceShutdown();
    for (const server of this.#ports.values()) server.close();
    await rm(this.#dir, { recursive: true, force: true });
  }

  async #listen(): Promise<void> {
    for (const behaviour of BEHAVIOURS) {
      if (behaviour === "refuse") continue;
      const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#serveConnection(socket, behaviour));
      this.#ports.set(behaviour, server.listen(0, "127.0.0.1"));
      await once(server, "listening");
    }
  }

  #serveConnection(socket: Socket, behaviour: Behaviour): void {
    this.#openCalls++;
    socket.on("error", () => {}).once("close", () => this.#openCalls--);
    behave(serverPeer(socket, behaviour)).catch(() => socket.destroy());
  }

  #serve<Input, Output>(call: ServerDuplexStream<Input, Output>, meet: (call: ServerDuplexStream<Input, Output>) => Promise<Peer>): void {
    this.#openCalls++;
    const over = Promise.withResolvers<void>();
    for (const event of ["close", "cancelled", "finish"]) call.once(event, () => over.resolve());
    void over.promise.then(() => this.#openCalls--);
    call.on("error", () => {});
    void meet(call)
      .then(behave)
      .catch(() => call.end());
  }
}

async function behave(peer: Peer): Promise<void> {
  switch (peer.behaviour) {
    case "end":
      return peer.succeed();
    case "echo":
      for await (const bytes of peer.input) await peer.send(bytes);
      return peer.succeed();
    case "flood":
      for (let count = 0; count < FLOOD_CHUNKS; count++) await peer.send(Buffer.alloc(FLOOD_CHUNK_BYTES, count));
      return peer.succeed();
    case "deaf":
      return await peer.wait();
    case "break":
      await peer.send(Buffer.from("so far"));
      return peer.fail(status.INTERNAL, "broke off");
    case "refuse":
      return peer.fail(status.UNKNOWN, "nothing listens");
  }
}

async function processPeer(call: ServerDuplexStream<StreamInput, StreamOutput>): Promise<Peer> {
  const messages = call[Symbol.asyncIterator]() as AsyncIterator<StreamInput>;
  const first = await messages.next();
  const start = first.done === true ? undefined : first.value.input;
  const [word] = start?.$case === "start" ? start.value.command : [];
  await write(call, { output: { $case: "started", value: {} } });
  return {
    behaviour: BEHAVIOURS.find((name) => name === word) ?? "echo",
    input: inputOf(messages, ({ input }) => (input?.$case === "stdin" ? input.value : input?.$case === "stdinClose" ? "end" : undefined)),
    send: (value) => write(call, { output: { $case: "stdout", value } }),
    wait: async () => {},
    succeed: () => {
      if (start?.$case === "start") call.write({ output: { $case: "exitCode", value: 0 } });
      call.end();
    },
    fail: (code, details) => call.destroy(Object.assign(new Error(details), { code, details })),
  };
}

async function connectionPeer(call: ServerDuplexStream<PortForwardInput, PortForwardOutput>): Promise<Peer> {
  const messages = call[Symbol.asyncIterator]() as AsyncIterator<PortForwardInput>;
  const first = await messages.next();
  const dial = first.done === true ? undefined : first.value.input;
  const behaviour = dial?.$case === "dial" ? (BEHAVIOURS[dial.value.port - 1] ?? "refuse") : "refuse";
  if (behaviour !== "refuse") await write(call, { output: { $case: "connected", value: {} } });
  return {
    behaviour,
    input: inputOf(messages, ({ input }) => (input?.$case === "data" ? input.value : input?.$case === "halfClose" ? "end" : undefined)),
    send: (value) => write(call, { output: { $case: "data", value } }),
    wait: async () => {},
    succeed: () => {
      call.write({ output: { $case: "halfClose", value: {} } });
      call.end();
    },
    fail: (code, details) => call.destroy(Object.assign(new Error(details), { code, details })),
  };
}

/** A server in a flat pod. */
function serverPeer(socket: Socket, behaviour: Behaviour): Peer {
  const close = () => void socket.destroy();
  const drain = () => (socket.readableEnded ? close() : void socket.once("end", close).resume());
  return {
    behaviour,
    input: socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>,
    send: async (bytes) => {
      if (socket.write(bytes)) return;
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      socket.once("drain", resolve).once("close", () => reject(new Error("the client has left")));
      await promise;
    },
    wait: async () => {
      await delay(DEAF_MS);
      drain();
    },
    succeed: () => {
      socket.end();
      socket.resume();
    },
    // What was sent before has time to arrive.
    fail: () => void setTimeout(() => socket.resetAndDestroy(), RESET_AFTER_MS),
  };
}

async function* inputOf<Message>(
  messages: AsyncIterator<Message>,
  read: (message: Message) => Buffer | "end" | undefined,
): AsyncGenerator<Buffer, void, void> {
  for (let next = await messages.next(); next.done !== true; next = await messages.next()) {
    const bytes = read(next.value);
    if (bytes === "end") return;
    if (bytes !== undefined) yield bytes;
  }
}

/** Resolves when the client takes more; rejects when it has left. */
async function write<Input, Output>(call: ServerDuplexStream<Input, Output>, message: Output): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const cancelled = () => reject(new Error("the client has left"));
  call.once("cancelled", cancelled);
  if (call.cancelled) cancelled();
  else call.write(message, (error?: Error | null) => (error ? reject(error) : resolve()));
  try {
    await promise;
  } finally {
    call.off("cancelled", cancelled);
  }
}
