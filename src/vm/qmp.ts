import { connect, type Socket } from "node:net";
import { z } from "zod";
import { joinSignals, untilAborted } from "../lib/abort.ts";
import { closedError, protocolError, VmError } from "./errors.ts";

/** Something that QEMU told by itself, such as `SHUTDOWN`. */
export interface QmpEvent {
  readonly name: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface QmpOptions {
  readonly signal: AbortSignal;
  readonly onEvent?: (event: QmpEvent) => void;
}

// A guest may have taken QEMU over: nothing it says is believed to be well-formed, short or ever finished.
const MAX_LINE_BYTES = 1 << 20;
const MAX_TEXT = 1024;

const word = z.string().min(1).max(128);
const object = z.record(z.string(), z.unknown());
const greetingSchema = z.object({ QMP: z.object({ version: object }) });
const messageSchema = z.union([
  z.object({ event: word, data: object.optional() }),
  z.object({ id: z.number(), return: z.unknown() }),
  z.object({ id: z.number(), error: z.object({ class: word, desc: z.string() }) }),
]);
type Message = z.infer<typeof messageSchema>;

interface Call {
  readonly command: string;
  resolve(answer: unknown): void;
  reject(error: unknown): void;
}

/**
 * One connection to QEMU's monitor. QEMU talks to one client at a time and lets the next one wait, so a connection lives for an operation, not
 * longer; after an error or a lost socket one makes a new one.
 */
export class QmpClient implements Disposable {
  readonly #socket: Socket;
  readonly #onEvent: ((event: QmpEvent) => void) | undefined;
  readonly #calls = new Map<number, Call>();
  readonly #greeted = Promise.withResolvers<void>();
  #state: "greeting" | "open" | "closed" = "greeting";
  #buffered: Buffer[] = [];
  #bufferedBytes = 0;
  #lastId = 0;

  private constructor(socket: Socket, onEvent: ((event: QmpEvent) => void) | undefined) {
    this.#socket = socket;
    this.#onEvent = onEvent;
  }

  /** Resolves when commands are taken. Throws ERR_QMP_CONNECT, ERR_QMP_PROTOCOL, ERR_QMP_CLOSED, or the signal's reason: another client can keep us waiting. */
  static async connect(path: string, options: QmpOptions): Promise<QmpClient> {
    const socket = await dial(path, options.signal);
    const client = new QmpClient(socket, options.onEvent);
    // An end of the connection rejects it also when nobody waits for a greeting any more.
    client.#greeted.promise.catch(() => {});
    socket.on("data", (chunk: Buffer) => client.#read(chunk));
    socket.on("error", (error) => client.#close(closedError(error)));
    socket.on("close", () => client.#close(closedError()));
    try {
      await untilAborted(client.#greeted.promise, options.signal);
      await client.execute("qmp_capabilities", {}, options);
      return client;
    } catch (error) {
      client[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Resolves to what the command returns, its shape unchecked. Throws ERR_QMP_COMMAND when QEMU refuses it; ERR_QMP_PROTOCOL or ERR_QMP_CLOSED
   * when the connection is of no use any more; the signal's reason, and then QEMU may still carry the command out.
   */
  async execute(command: string, args: Readonly<Record<string, unknown>>, options: { readonly signal: AbortSignal }): Promise<unknown> {
    options.signal.throwIfAborted();
    if (this.#state === "closed") throw closedError();
    const id = ++this.#lastId;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#calls.set(id, { command, resolve, reject });
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    try {
      return await untilAborted(promise, options.signal);
    } finally {
      // The answer of an abandoned command is dropped when it comes: there is nobody of this id.
      this.#calls.delete(id);
    }
  }

  [Symbol.dispose](): void {
    this.#close(closedError());
  }

  #read(chunk: Buffer): void {
    let rest = chunk;
    for (let end = rest.indexOf(10); end !== -1 && this.#state !== "closed"; end = rest.indexOf(10)) {
      const line = Buffer.concat([...this.#buffered, rest.subarray(0, end)]);
      this.#buffered = [];
      this.#bufferedBytes = 0;
      rest = rest.subarray(end + 1);
      if (line.length > MAX_LINE_BYTES) return this.#fail(`a line of more than ${MAX_LINE_BYTES} bytes`);
      this.#take(line.toString("utf8"));
    }
    if (rest.length === 0 || this.#state === "closed") return;
    this.#buffered.push(rest);
    this.#bufferedBytes += rest.length;
    if (this.#bufferedBytes > MAX_LINE_BYTES) this.#fail(`a line of more than ${MAX_LINE_BYTES} bytes`);
  }

  #take(line: string): void {
    if (line.trim() === "") return;
    const json = parseJson(line);
    if (this.#state === "greeting") {
      if (!greetingSchema.safeParse(json).success) return this.#fail("the first line is no greeting");
      this.#state = "open";
      return this.#greeted.resolve();
    }
    const message = messageSchema.safeParse(json);
    if (!message.success) return this.#fail(`not a message: ${printable(line).slice(0, 200)}`);
    this.#dispatch(message.data);
  }

  #dispatch(message: Message): void {
    if ("event" in message) {
      this.#onEvent?.({ name: message.event, data: message.data ?? {} });
      return;
    }
    if (message.id > this.#lastId) return this.#fail(`an answer to command ${message.id}, which was never given`);
    const call = this.#calls.get(message.id);
    if (call === undefined) return;
    if ("error" in message) call.reject(commandError(call.command, message.error.class, message.error.desc));
    else call.resolve(message.return);
  }

  #fail(problem: string): void {
    this.#close(protocolError(problem));
  }

  #close(error: VmError): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#socket.destroy();
    this.#buffered = [];
    this.#greeted.reject(error);
    for (const call of this.#calls.values()) call.reject(error);
    this.#calls.clear();
  }
}

/** What a command returned, once it has the shape that it should. Throws ERR_QMP_PROTOCOL. */
export function parseAnswer<T>(schema: z.ZodType<T>, answer: unknown, command: string): T {
  const parsed = schema.safeParse(answer);
  if (parsed.success) return parsed.data;
  throw protocolError(`${command} was answered with something else: ${parsed.error.issues[0]?.message ?? ""}`);
}

async function dial(path: string, signal: AbortSignal): Promise<Socket> {
  signal.throwIfAborted();
  using scope = joinSignals(signal);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const socket = connect({ path });
  scope.signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  socket.once("connect", resolve);
  socket.once("error", reject);
  try {
    await promise;
    return socket;
  } catch (error) {
    socket.on("error", () => {});
    socket.destroy();
    signal.throwIfAborted();
    const errno = error instanceof Error && "code" in error ? String(error.code) : "unknown";
    throw new VmError({ code: "ERR_QMP_CONNECT", path, errno }, `QMP: cannot connect to ${path}: ${errno}: the machine is not running`, {
      cause: error,
    });
  } finally {
    socket.removeListener("error", reject);
  }
}

function commandError(command: string, errorClass: string, desc: string): VmError {
  const said = printable(desc).slice(0, MAX_TEXT);
  return new VmError({ code: "ERR_QMP_COMMAND", command, class: errorClass, desc: said }, `QEMU refuses ${command}: ${said}`);
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** Without what would write to a terminal or break a log line. */
function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, " ");
}
