import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server as NetServer, type Socket } from "node:net";
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
import { Agent } from "./agent.ts";

/** What a process or a server in the fake pod does with its client. */
export const BEHAVIOURS = [
  /** Ends at once. */
  "end",
  /** Gives back what it gets, to its end. */
  "echo",
  /** Sends 512 KiB, then ends; reads nothing. */
  "flood",
  /** Reads nothing and says nothing until it is given up; on a stream, where that cannot be seen, for a while. */
  "deaf",
  /** Says something, then breaks off with an error. */
  "break",
  /** Cannot be had at all. */
  "refuse",
] as const;
export type Behaviour = (typeof BEHAVIOURS)[number];

const DEAF_MS = 200;
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
 * An auraed without containers, on a unix socket of its own. A command of one word is a behaviour; so is a port, by its place in `BEHAVIOURS`
 * from 1 on; an attached container echoes. ExecSync succeeds at once.
 */
export class BehavingAuraed implements AsyncDisposable {
  readonly agent: Agent;
  readonly #server: Server;
  readonly #streams: NetServer | undefined;
  readonly #dir: string;
  #openCalls = 0;

  private constructor(parts: {
    readonly server: Server;
    readonly streams: NetServer | undefined;
    readonly dir: string;
    readonly socketPath: string;
  }) {
    this.#server = parts.server;
    this.#streams = parts.streams;
    this.#dir = parts.dir;
    this.agent = new Agent(parts.socketPath);
  }

  /** `flat`: with the socket for streams that a guest's auraed has not. */
  static async start(mode: "flat" | "guest"): Promise<BehavingAuraed> {
    const dir = await mkdtemp(join(tmpdir(), "fake-auraed-"));
    const socketPath = join(dir, "auraed.sock");
    const server = new Server();
    const streams = mode === "flat" ? createServer({ allowHalfOpen: true }) : undefined;
    const fake = new BehavingAuraed({ server, streams, dir, socketPath });
    streams?.on("connection", (socket) => fake.#serveStream(socket)).listen(join(dir, "stream.sock"));
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

  /** Streaming calls and streams that are not over. */
  get openCalls(): number {
    return this.#openCalls;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.agent[Symbol.dispose]();
    this.#server.forceShutdown();
    this.#streams?.close();
    await rm(this.#dir, { recursive: true, force: true });
  }

  #serveStream(socket: Socket): void {
    this.#openCalls++;
    socket.on("error", () => {}).once("close", () => this.#openCalls--);
    void streamPeer(socket)
      .then(behave)
      .catch(() => socket.destroy());
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

/** The frames of auraed's socket for streams, from the other side. */
async function streamPeer(socket: Socket): Promise<Peer> {
  const reader = new SocketReader(socket);
  const behaviour = BEHAVIOURS[(await reader.take(2)).readUInt16BE(0) - 1] ?? "refuse";
  if (behaviour !== "refuse") socket.write(Buffer.from([0]));
  return {
    behaviour,
    input: framesOf(reader),
    send: async (bytes) => {
      if (socket.write(Buffer.concat([uint32(bytes.length), bytes]))) return;
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      socket.once("drain", resolve).once("close", () => reject(new Error("the client has left")));
      await promise;
    },
    wait: async () => {
      await delay(DEAF_MS);
      await reader.drain();
    },
    // The client closes.
    succeed: () => {
      socket.write(uint32(0));
      void reader.drain();
    },
    fail: (_, details) => {
      if (behaviour !== "refuse") socket.write(uint32(0xffff_ffff));
      socket.end(behaviour === "refuse" ? `\u0001${details}` : details);
      void reader.drain();
    },
  };
}

/** To the half-close. */
async function* framesOf(reader: SocketReader): AsyncGenerator<Buffer, void, void> {
  for (let length = await reader.number(); length > 0; length = await reader.number()) yield await reader.take(length);
}

class SocketReader {
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #socket: Socket;
  #held: Buffer = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.#socket = socket;
    this.#chunks = socket.iterator({ destroyOnReturn: false })[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  }

  /** Reads to the client's end, then closes. Never rejects. */
  async drain(): Promise<void> {
    await (async () => {
      while ((await this.#chunks.next()).done !== true);
    })().catch(() => {});
    this.#socket.destroy();
  }

  async number(): Promise<number> {
    return (await this.take(4)).readUInt32BE(0);
  }

  /** Rejects when the client closes before. */
  async take(count: number): Promise<Buffer> {
    while (this.#held.length < count) {
      const next = await this.#chunks.next();
      if (next.done === true) throw new Error("the client has left");
      this.#held = Buffer.concat([this.#held, next.value]);
    }
    const bytes = this.#held.subarray(0, count);
    this.#held = this.#held.subarray(count);
    return bytes;
  }
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
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
