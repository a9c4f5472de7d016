import { once } from "node:events";
import type { Duplex } from "node:stream";

import { controlFrame, dataHead, FLAG_FIN, FrameReader, GOAWAY, PING, RST_STREAM, SYN_REPLY, SYN_STREAM } from "./spdy/frames.ts";
import { HeaderCodec } from "./spdy/header-codec.ts";

/** A client of the framing for tests: opens streams, and keeps what came as a list of lines. */
export class SpdyTestClient implements Disposable {
  /** `data 1 text`, `fin 1`, `reply 1`, `reset 1`, `ping 1`, `goaway`, `closed`: one a line, in the order they came; data of a stream in a row joined. */
  readonly seen: string[] = [];
  readonly #transport: Duplex;
  readonly #codec = new HeaderCodec();
  #wake = Promise.withResolvers<void>();
  #nextId = 1;

  constructor(transport: Duplex) {
    this.#transport = transport;
    void this.#read();
  }

  /** The stream's id. */
  async open(headers: Readonly<Record<string, string>>, flags = 0): Promise<number> {
    const id = this.#nextId;
    this.#nextId += 2;
    const block = await this.#codec.encode(new Map(Object.entries(headers)));
    this.#transport.write(controlFrame(SYN_STREAM, flags, [id, 0], Buffer.concat([Buffer.alloc(2), block])));
    return id;
  }

  send(id: number, text: string | Buffer, flags = 0): void {
    const bytes = Buffer.from(text);
    this.#transport.write(Buffer.concat([dataHead(id, flags, bytes.length), bytes]));
  }

  halfClose(id: number): void {
    this.#transport.write(dataHead(id, FLAG_FIN, 0));
  }

  write(bytes: Buffer): void {
    this.#transport.write(bytes);
  }

  destroy(): void {
    this.#transport.destroy();
  }

  /** What came on a stream so far. */
  text(id: number): string {
    return this.seen
      .filter((line) => line.startsWith(`data ${id} `))
      .map((line) => line.slice(`data ${id} `.length))
      .join("");
  }

  /** Until a line is there. */
  async until(line: string | RegExp): Promise<void> {
    const isIt = (seen: string) => (typeof line === "string" ? seen === line : line.test(seen));
    while (!this.seen.some(isIt)) {
      if (this.seen.includes("closed")) throw new Error(`closed before ${String(line)}: ${this.seen.join(" | ")}`);
      await this.#wake.promise;
    }
  }

  /** Everything until the server closes. */
  async end(): Promise<readonly string[]> {
    await this.until("closed");
    return this.seen;
  }

  [Symbol.dispose](): void {
    this.#transport.destroy();
    this.#codec[Symbol.dispose]();
  }

  async #read(): Promise<void> {
    const reader = new FrameReader();
    try {
      for await (const chunk of this.#transport) for (const frame of reader.push(chunk as Buffer)) this.#note(frame);
    } catch {
      // Reset: as good as closed.
    }
    this.#say("closed");
  }

  #note(frame: ReturnType<FrameReader["push"]> extends Generator<infer Frame> ? Frame : never): void {
    if (frame.kind === "data") {
      if (frame.bytes.length > 0) this.#sayData(frame.streamId, frame.bytes.toString("latin1"));
      if (frame.fin) this.#say(`fin ${frame.streamId}`);
      return;
    }
    const number = frame.payload.readUInt32BE(0);
    const names: Readonly<Record<number, string>> = { [SYN_REPLY]: "reply", [RST_STREAM]: "reset", [PING]: "ping" };
    if (frame.type === GOAWAY) this.#say("goaway");
    else this.#say(`${names[frame.type] ?? frame.type} ${number}`);
  }

  #sayData(id: number, text: string): void {
    const last = this.seen.at(-1) ?? "";
    if (last.startsWith(`data ${id} `)) this.seen[this.seen.length - 1] = last + text;
    else this.seen.push(`data ${id} ${text}`);
    this.#notify();
  }

  #say(line: string): void {
    this.seen.push(line);
    this.#notify();
  }

  #notify(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers<void>();
  }
}

/** The connection behind a 101; its head read off. */
export async function switched(socket: Duplex): Promise<string> {
  let head = Buffer.alloc(0);
  for (;;) {
    const end = head.indexOf("\r\n\r\n");
    if (end >= 0) {
      socket.unshift(head.subarray(end + 4));
      return head.toString("latin1", 0, end);
    }
    const chunk = socket.read() as Buffer | null;
    if (chunk !== null) head = Buffer.concat([head, chunk]);
    else if (socket.destroyed || socket.readableEnded) throw new Error(`closed: ${head.toString()}`);
    else await Promise.race([once(socket, "readable"), once(socket, "close")]);
  }
}
