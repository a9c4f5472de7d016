import { createConnection, type Socket } from "node:net";

import type { AgentError } from "./errors.ts";

const CONNECTED = 0;
const HEAD_BYTES = 4;
/** In place of a length: the pod's connection broke, the reason follows. */
const BROKEN = 0xffff_ffff;
/** Of the reason of a failure. */
const MAX_REASON_BYTES = 4096;

/** A piece of what the pod sends, or its half-close. */
export type PortOutput = { readonly kind: "data"; readonly bytes: Buffer } | { readonly kind: "end" };

/**
 * A connection to a port of a pod, on auraed's socket for streams: frames of a length and as many bytes, without gRPC, which costs several
 * times the copying. The format is told in auraed's `stream_socket`.
 */
export class PortStream implements Disposable {
  readonly #socket: Socket;
  readonly #signal: AbortSignal;
  readonly #fail: (reason: string) => AgentError;
  readonly #giveUp = (): void => void this.#socket.destroy();
  #localEnded = false;
  #remoteEnded = false;

  private constructor(socket: Socket, options: { readonly signal: AbortSignal; readonly fail: (reason: string) => AgentError }) {
    this.#socket = socket;
    this.#signal = options.signal;
    this.#fail = options.fail;
    options.signal.addEventListener("abort", this.#giveUp, { once: true });
  }

  /**
   * Connects to the port. Undefined: this auraed has no such socket. Throws `fail`'s error when nothing listens there, auraed cannot be
   * reached, or the signal aborts first.
   */
  static async open(
    path: string,
    port: number,
    options: { readonly signal: AbortSignal; readonly fail: (reason: string) => AgentError },
  ): Promise<PortStream | undefined> {
    if (options.signal.aborted) throw options.fail("given up");
    const socket = createConnection({ path });
    const stream = new PortStream(socket, options);
    const hello = Buffer.alloc(2);
    hello.writeUInt16BE(port);
    socket.write(hello);
    try {
      if (!(await connected(socket))) return undefined;
      // Nothing is sent before: what auraed has not read when it closes would cost its answer.
      if ((await answer(socket)) === CONNECTED) return stream;
      throw new Error(await reasonOf(socket));
    } catch (error) {
      stream[Symbol.dispose]();
      throw options.fail(options.signal.aborted || !(error instanceof Error) ? "given up" : error.message);
    }
  }

  /** Resolves when the pod takes more, or the connection is over. What is written after `end` is dropped. */
  async write(bytes: Buffer): Promise<void> {
    if (bytes.length === 0 || this.#localEnded || !this.#socket.writable) return;
    this.#socket.cork();
    this.#socket.write(head(bytes.length));
    this.#socket.write(bytes);
    this.#socket.uncork();
    if (!this.#socket.writableNeedDrain) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const done = () => resolve();
    this.#socket.once("drain", done).once("close", done);
    await promise;
    this.#socket.off("drain", done).off("close", done);
  }

  /** Half-close. */
  end(): void {
    if (this.#localEnded) return;
    this.#localEnded = true;
    if (this.#socket.writable) this.#socket.write(head(0));
    this.#closeWhenOver();
  }

  /** At the consumer's pace, until both directions have ended. Throws when the connection broke. */
  async *outputs(): AsyncGenerator<PortOutput, void, void> {
    const reader = new OutputReader();
    try {
      for await (const chunk of this.#socket) {
        for (const output of reader.push(chunk as Buffer)) {
          yield output;
          if (output.kind === "end") this.#remoteEnded = true;
        }
        this.#closeWhenOver();
      }
    } catch (error) {
      if (this.#localEnded && this.#remoteEnded) return;
      throw this.#fail(this.#signal.aborted || !(error instanceof Error) ? "given up" : error.message);
    } finally {
      this[Symbol.dispose]();
    }
    throw this.#fail(reader.reason ?? "auraed broke the connection off");
  }

  /** It is ours to close: auraed cannot know that the other end wants no more. */
  #closeWhenOver(): void {
    if (this.#localEnded && this.#remoteEnded) this.#socket.destroySoon();
  }

  [Symbol.dispose](): void {
    this.#signal.removeEventListener("abort", this.#giveUp);
    this.#socket.destroy();
  }
}

/** False: there is no such socket. */
async function connected(socket: Socket): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  socket.on("error", (error: NodeJS.ErrnoException) => (error.code === "ENOENT" ? resolve(false) : reject(error)));
  socket.once("close", () => reject(new Error("auraed broke the connection off")));
  socket.once("connect", () => resolve(true));
  return await promise;
}

/** The first byte. */
async function answer(socket: Socket): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const read = () => {
    const byte = socket.read(1) as Buffer | null;
    if (byte !== null) resolve(byte.readUInt8(0));
  };
  socket.on("readable", read);
  socket.once("error", reject).once("close", () => reject(new Error("auraed broke the connection off")));
  try {
    return await promise;
  } finally {
    socket.off("readable", read);
  }
}

async function reasonOf(socket: Socket): Promise<string> {
  let reason = Buffer.alloc(0);
  for await (const chunk of socket) reason = Buffer.concat([reason, chunk as Buffer]).subarray(0, MAX_REASON_BYTES);
  return reason.toString("utf8");
}

type State = { readonly at: "head" } | { readonly at: "data"; left: number } | { readonly at: "reason" };

/** Cuts what auraed sends into pieces that share its memory. Holds at most the head of a frame, or a reason. */
class OutputReader {
  #state: State = { at: "head" };
  #held: Buffer = Buffer.alloc(0);

  /** Why the connection broke. */
  get reason(): string | undefined {
    return this.#state.at === "reason" ? this.#held.toString("utf8") : undefined;
  }

  *push(chunk: Buffer): Generator<PortOutput, void, void> {
    let rest = chunk;
    while (rest.length > 0) {
      switch (this.#state.at) {
        case "head": {
          const taken = rest.subarray(0, HEAD_BYTES - this.#held.length);
          const bytes = this.#held.length === 0 ? taken : Buffer.concat([this.#held, taken]);
          rest = rest.subarray(taken.length);
          const whole = bytes.length === HEAD_BYTES;
          this.#held = whole ? Buffer.alloc(0) : Buffer.from(bytes);
          const length = whole ? bytes.readUInt32BE(0) : undefined;
          if (length === 0) yield { kind: "end" };
          else if (length === BROKEN) this.#state = { at: "reason" };
          else if (length !== undefined) this.#state = { at: "data", left: length };
          break;
        }
        case "data": {
          const bytes = rest.subarray(0, this.#state.left);
          rest = rest.subarray(bytes.length);
          this.#state.left -= bytes.length;
          if (this.#state.left === 0) this.#state = { at: "head" };
          yield { kind: "data", bytes };
          break;
        }
        case "reason":
          this.#held = Buffer.concat([this.#held, rest]).subarray(0, MAX_REASON_BYTES);
          return;
      }
    }
  }
}

function head(length: number): Buffer {
  const bytes = Buffer.alloc(HEAD_BYTES);
  bytes.writeUInt32BE(length);
  return bytes;
}
