import { once } from "node:events";
import { createConnection, type Socket } from "node:net";
import { deflateRawSync, constants as zlib } from "node:zlib";

const SYN_STREAM = 1;
const RST_STREAM = 3;
const FLAG_FIN = 1;
const HEAD_BYTES = 8;
/** The head of a zlib stream without the protocol's dictionary, which a reader must accept. */
const ZLIB_HEAD = Buffer.from([0x78, 0x9c]);

/** One stream of a connection; what comes on it goes to `onBytes`. */
export class ClientStream {
  readonly id: number;
  readonly ended: Promise<void>;
  readonly #socket: Socket;
  readonly #onBytes: (bytes: Buffer) => void;
  readonly #end = Promise.withResolvers<void>();

  constructor(socket: Socket, id: number, onBytes: (bytes: Buffer) => void) {
    this.#socket = socket;
    this.id = id;
    this.#onBytes = onBytes;
    this.ended = this.#end.promise;
    // Asked for when it matters.
    this.ended.catch(() => {});
  }

  /** Resolves when the server takes more. */
  async write(bytes: Buffer): Promise<void> {
    this.#socket.write(dataHead(this.id, 0, bytes.length));
    if (!this.#socket.write(bytes)) await once(this.#socket, "drain");
  }

  /** Half-close. */
  end(): void {
    this.#socket.write(dataHead(this.id, FLAG_FIN, 0));
  }

  take(bytes: Buffer): void {
    this.#onBytes(bytes);
  }

  finish(error?: Error): void {
    if (error === undefined) this.#end.resolve();
    else this.#end.reject(error);
  }
}

/** As much of a SPDY/3.1 client as measuring needs: it reads no header blocks and answers no pings. */
export class SpdyClient implements Disposable {
  readonly #socket: Socket;
  readonly #streams = new Map<number, ClientStream>();
  #held: Buffer = Buffer.alloc(0);
  #data: { readonly stream: ClientStream | undefined; readonly fin: boolean; left: number } | undefined;
  #nextId = 1;

  private constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Connects to an address of Exec, Attach or PortForward. */
  static async open(url: string, protocol: string): Promise<SpdyClient> {
    const { hostname, port, pathname } = new URL(url);
    const socket = createConnection({ host: hostname, port: Number(port), noDelay: true });
    const headers = ["Host: bench", "Connection: Upgrade", "Upgrade: SPDY/3.1", `X-Stream-Protocol-Version: ${protocol}`];
    socket.write([`POST ${pathname} HTTP/1.1`, ...headers, "", ""].join("\r\n"));
    const client = new SpdyClient(socket);
    let answer = Buffer.alloc(0);
    while (!answer.includes("\r\n\r\n")) {
      const [chunk] = (await once(socket, "data")) as [Buffer];
      answer = Buffer.concat([answer, chunk]);
    }
    const end = answer.indexOf("\r\n\r\n") + 4;
    if (!answer.toString("latin1").startsWith("HTTP/1.1 101 ")) {
      socket.destroy();
      throw new Error(`no upgrade: ${answer.toString("latin1")}`);
    }
    socket.on("data", (chunk: Buffer) => client.#read(chunk));
    socket.on("error", (error) => client.#close(error));
    socket.on("close", () => client.#close(new Error("the server closed the connection")));
    client.#read(answer.subarray(end));
    return client;
  }

  openStream(headers: Readonly<Record<string, string>>, onBytes: (bytes: Buffer) => void): ClientStream {
    const stream = new ClientStream(this.#socket, this.#nextId, onBytes);
    const block = deflateRawSync(headerBlock(headers), { finishFlush: zlib.Z_SYNC_FLUSH });
    const payload = Buffer.concat([uint32(stream.id, 0), Buffer.alloc(2), this.#nextId === 1 ? ZLIB_HEAD : Buffer.alloc(0), block]);
    this.#nextId += 2;
    this.#streams.set(stream.id, stream);
    this.#socket.write(Buffer.concat([uint32(0x8003_0000 + SYN_STREAM, payload.length), payload]));
    return stream;
  }

  /** Reads nothing more, until `resume`. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#data !== undefined) rest = this.#readData(this.#data, rest);
      else {
        rest = this.#held.length === 0 ? rest : Buffer.concat([this.#held, rest]);
        this.#held = Buffer.alloc(0);
        const size = frameSize(rest);
        if (size === undefined || rest.length < size) {
          this.#held = Buffer.from(rest);
          return;
        }
        this.#begin(rest.subarray(0, size));
        rest = rest.subarray(size);
      }
    }
  }

  #readData(data: { readonly stream: ClientStream | undefined; readonly fin: boolean; left: number }, chunk: Buffer): Buffer {
    const piece = chunk.subarray(0, data.left);
    data.left -= piece.length;
    data.stream?.take(piece);
    if (data.left === 0) {
      this.#data = undefined;
      if (data.fin) data.stream?.finish();
    }
    return chunk.subarray(piece.length);
  }

  /** A control frame whole, or the head of a data frame. */
  #begin(frame: Buffer): void {
    const first = frame.readUInt32BE(0);
    if (first < 0x8000_0000) {
      const stream = this.#streams.get(first);
      const fin = (frame.readUInt8(4) & FLAG_FIN) !== 0;
      const left = frame.readUIntBE(5, 3);
      if (left > 0) this.#data = { stream, fin, left };
      else if (fin) stream?.finish();
    } else if ((first & 0xffff) === RST_STREAM)
      this.#streams.get(frame.readUInt32BE(HEAD_BYTES))?.finish(new Error("the server reset a stream"));
  }

  #close(error: Error): void {
    for (const stream of this.#streams.values()) stream.finish(error);
  }
}

/** Of a control frame with its payload, of a data frame without. Undefined until the head is there. */
function frameSize(bytes: Buffer): number | undefined {
  if (bytes.length < HEAD_BYTES) return undefined;
  return bytes.readUInt32BE(0) < 0x8000_0000 ? HEAD_BYTES : HEAD_BYTES + bytes.readUIntBE(5, 3);
}

function headerBlock(headers: Readonly<Record<string, string>>): Buffer {
  const texts = Object.entries(headers).flat();
  return Buffer.concat([uint32(texts.length / 2), ...texts.flatMap((text) => [uint32(text.length), Buffer.from(text)])]);
}

function uint32(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, index * 4);
  return bytes;
}

function dataHead(id: number, flags: number, length: number): Buffer {
  return uint32(id, flags * 0x100_0000 + length);
}
