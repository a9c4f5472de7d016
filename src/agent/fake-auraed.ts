import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";

import { Server, ServerCredentials, type ServerDuplexStream, status, type UntypedServiceImplementation } from "@grpc/grpc-js";

import {
  PodServiceService,
  type PortForwardInput,
  type PortForwardOutput,
  type StreamInput,
  type StreamOutput,
  type TerminalSize,
} from "../../api/gen/aurae/pod/v0/pod.ts";
import { HostError } from "../host/errors.ts";
import { Agent } from "./agent.ts";

type ProcessCall = ServerDuplexStream<StreamInput, StreamOutput>;
type ForwardCall = ServerDuplexStream<PortForwardInput, PortForwardOutput>;

const FLOOD_CHUNKS = 32;
const FLOOD_CHUNK_BYTES = 16 * 1024;
const DEAF_MS = 200;
const RESET_AFTER_MS = 20;

/** What commands of these names do, and the servers at their ports (`portOf`). */
const behaviours = {
  /** Ends at once. */
  end: (peer) => peer.end(),
  /** Gives back what it gets, to its end. */
  echo: async (peer) => {
    for await (const bytes of peer.input) await peer.say(bytes);
    await peer.end();
  },
  /** Sends 512 KiB, then ends; reads nothing. */
  flood: async (peer) => {
    for (let count = 0; count < FLOOD_CHUNKS; count++) await peer.say(Buffer.alloc(FLOOD_CHUNK_BYTES, count));
    await peer.end();
  },
  /** Reads nothing and says nothing until it is given up; on a socket, where that cannot be seen, for a while. */
  deaf: (peer) => peer.gone(),
  /** Says something, then breaks off with an error. */
  break: async (peer) => {
    await peer.say(Buffer.from("so far"));
    throw failure(status.INTERNAL, "broke off");
  },
  /** Cannot be had at all: so is every command and port that is not in this table. */
  refuse: (peer) => Promise.reject(failure(status.FAILED_PRECONDITION, peer.refusal)),
  /** Says `hello` and ends, and takes what the client still sends. */
  greet: async (peer) => {
    await peer.say(Buffer.from("hello"));
    await peer.end();
    for await (const _ of peer.input);
  },
  /** `exit N`: prints `out` and `err` and ends with that code. */
  exit: async (peer) => {
    await peer.say(Buffer.from("out"));
    await peer.complain(Buffer.from("err"));
    await peer.end(Number(peer.args[0] ?? 0));
  },
} satisfies Readonly<Record<string, (peer: Peer) => Promise<void>>>;

export type Behaviour = keyof typeof behaviours;
export const BEHAVIOURS = Object.keys(behaviours) as [Behaviour, ...Behaviour[]];

/** The port of the fake pod behind which something behaves like this: its place in `BEHAVIOURS`, from 1 on. */
export function portOf(behaviour: Behaviour): number {
  return BEHAVIOURS.indexOf(behaviour) + 1;
}

/** A process or a connection in the pod, as behaviours see it. A behaviour that returns lets the client go, one that throws breaks off. */
interface Peer {
  readonly behaviour: Behaviour;
  /** The words of a command after its name. */
  readonly args: readonly string[];
  readonly refusal: string;
  /** Ends with the client's half-close. A terminal's window is a line in it, like `80x24`: at the start, and each later one. */
  readonly input: AsyncIterable<Buffer>;
  /** Resolves when the client takes more; rejects when it has left. */
  say(bytes: Buffer): Promise<void>;
  /** On stderr: a connection has none. */
  complain(bytes: Buffer): Promise<void>;
  /** A process exits, a connection half-closes. */
  end(code?: number): Promise<void>;
  /** Resolves when the client has left, as far as that can be seen. */
  gone(): Promise<void>;
  letGo(): void;
  breakOff(error: unknown): void;
}

/**
 * The streams of the pod contract without containers behind them, and what listens in the pod, for tests of who calls them. An attached
 * container echoes.
 */
export class FakeAuraed implements AsyncDisposable {
  readonly agent: Agent;
  /** Calls and connections that are not over. */
  open = 0;
  /** Calls that the daemon gave up. */
  givenUp = 0;
  readonly #server = new Server();

  private constructor(agent: Agent) {
    this.agent = agent;
  }

  /** On a socket of its own unless one is named. */
  static async listen(socketPath = join(tmpdir(), `fake-auraed-${randomUUID()}.sock`)): Promise<FakeAuraed> {
    const fake = new FakeAuraed(new Agent(socketPath));
    const process = (call: ProcessCall) => fake.#serve(call, meetProcess(call));
    const portForward = (call: ForwardCall) => fake.#serve(call, meetConnection(call));
    const implementation: UntypedServiceImplementation = { exec: process, attach: process, portForward };
    fake.#server.addService(PodServiceService, implementation);
    const bind = promisify(fake.#server.bindAsync.bind(fake.#server));
    await bind(`unix:${socketPath}`, ServerCredentials.createInsecure());
    return fake;
  }

  /** As the host's side does for a flat pod. */
  async dial(port: number): Promise<Socket> {
    const behaviour = behaviourAt(port);
    if (behaviour === "refuse") throw new HostError({ code: "ERR_DIAL", port }, "nothing listens");
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      server.close();
      this.#serve(socket, Promise.resolve(socketPeer(socket, behaviour)));
    });
    await once(server.listen(0, "127.0.0.1"), "listening");
    const address = server.address() as AddressInfo;
    const client = createConnection({ host: address.address, port: address.port, allowHalfOpen: true, noDelay: true });
    await once(client, "connect");
    return client;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.agent[Symbol.dispose]();
    this.#server.forceShutdown();
  }

  #serve(stream: Readable & Writable, meeting: Promise<Peer>): void {
    this.open++;
    stream.once("close", () => this.open--).on("error", () => {});
    // gRPC says so at the end of every call.
    stream.once("cancelled", () => {
      if (!stream.writableEnded) this.givenUp++;
    });
    // Who leaves before a word is never met.
    void meeting.then(behave).catch(() => {});
  }
}

async function behave(peer: Peer): Promise<void> {
  try {
    await behaviours[peer.behaviour](peer);
    peer.letGo();
  } catch (error) {
    peer.breakOff(error);
  }
}

async function meetProcess(call: ProcessCall): Promise<Peer> {
  const messages = messagesOf<StreamInput>(call);
  const first = (await messages.next()).value?.input;
  const start = first?.$case === "start" ? first.value : undefined;
  const [name, ...args] = start?.command ?? ["echo"];
  const behaviour = BEHAVIOURS.find((known) => known === name) ?? "refuse";
  const send = (output: StreamOutput["output"]) => write(call, { output });
  if (behaviour !== "refuse") await send({ $case: "started", value: {} });
  return {
    behaviour,
    args,
    refusal: `${name}: no such program`,
    input: stdinOf(messages, start?.size),
    say: (value) => send({ $case: "stdout", value }),
    complain: (value) => send({ $case: "stderr", value }),
    end: async (code = 0) => {
      if (start !== undefined) await send({ $case: "exitCode", value: code });
    },
    ...partingOf(call),
  };
}

async function meetConnection(call: ForwardCall): Promise<Peer> {
  const messages = messagesOf<PortForwardInput>(call);
  const first = (await messages.next()).value?.input;
  const port = first?.$case === "dial" ? first.value.port : 0;
  const behaviour = behaviourAt(port);
  const send = (output: PortForwardOutput["output"]) => write(call, { output });
  if (behaviour !== "refuse") await send({ $case: "connected", value: {} });
  return {
    behaviour,
    args: [],
    refusal: `port ${port}: connection refused`,
    input: dataOf(messages),
    say: (value) => send({ $case: "data", value }),
    complain: async () => {},
    end: () => send({ $case: "halfClose", value: {} }),
    ...partingOf(call),
  };
}

/** A connection to a server in a flat pod. */
function socketPeer(socket: Socket, behaviour: Behaviour): Peer {
  const input = socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
  return {
    behaviour,
    args: [],
    refusal: "",
    input,
    say: (bytes) => write(socket, bytes),
    complain: async () => {},
    end: async () => void socket.end(),
    gone: async () => {
      await delay(DEAF_MS);
      for await (const _ of input);
    },
    letGo: () => void socket.end().resume(),
    // What was sent before has time to arrive.
    breakOff: () => void setTimeout(() => socket.resetAndDestroy(), RESET_AFTER_MS),
  };
}

function partingOf(call: ProcessCall | ForwardCall): Pick<Peer, "gone" | "letGo" | "breakOff"> {
  return {
    gone: async () => void (await once(call, "close")),
    letGo: () => void call.end(),
    breakOff: (error) => void call.emit("error", error),
  };
}

function behaviourAt(port: number): Behaviour {
  return BEHAVIOURS[port - 1] ?? "refuse";
}

async function* messagesOf<Message>(call: Readable): AsyncGenerator<Message, undefined, void> {
  yield* call.iterator({ destroyOnReturn: false }) as AsyncIterable<Message>;
  // Those of a lost client end before the call does: that is no end of input.
  if (!call.destroyed) await once(call, "close");
}

async function* stdinOf(messages: AsyncIterable<StreamInput>, size: TerminalSize | undefined): AsyncGenerator<Buffer, void, void> {
  const line = ({ width, height }: TerminalSize) => Buffer.from(`${width}x${height}\n`);
  if (size !== undefined) yield line(size);
  for await (const { input } of messages) {
    if (input?.$case === "stdin") yield input.value;
    else if (input?.$case === "resize") yield line(input.value);
    else if (input?.$case === "stdinClose") return;
  }
}

async function* dataOf(messages: AsyncIterable<PortForwardInput>): AsyncGenerator<Buffer, void, void> {
  for await (const { input } of messages) {
    if (input?.$case === "data") yield input.value;
    else if (input?.$case === "halfClose") return;
  }
}

/** Resolves when the client takes more; rejects when it has left, which gRPC does not tell who waits. */
async function write(stream: Readable & Writable, message: unknown): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const left = () => reject(new Error("the client has left"));
  stream.once("close", left);
  if (stream.destroyed) left();
  else stream.write(message, (error) => (error ? reject(error) : resolve()));
  await promise.finally(() => stream.off("close", left));
}

function failure(code: status, details: string): Error {
  return Object.assign(new Error(details), { code, details });
}
