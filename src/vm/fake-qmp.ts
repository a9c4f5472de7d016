import { once } from "node:events";
import { rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";

/** Whether somebody takes connections there: QEMU's socket is a file for a moment before it listens. */
export async function isListening(path: string): Promise<boolean> {
  const socket = connect(path);
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

export interface FakeCommand {
  readonly execute: string;
  readonly arguments: Readonly<Record<string, unknown>>;
  readonly id: number;
}

/** What the fake writes for a command: an answer without its id, or raw text. */
export type FakeAnswer = { readonly return: unknown } | { readonly error: { readonly class: string; readonly desc: string } } | string;

export interface FakeQmp extends AsyncDisposable {
  readonly path: string;
  /** Writes to the client that is connected. */
  say(text: string): void;
  /** Cuts its connection. */
  hangUp(): void;
}

export const fakeGreeting = '{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}';

/** A QMP server on a unix socket: for what QEMU would never say, and for machines without it. */
export async function openFakeQmp(
  path: string,
  answer: (command: FakeCommand) => FakeAnswer,
  options: { readonly greeting?: string } = {},
): Promise<FakeQmp> {
  let client: Socket | undefined;
  const server = createServer((socket) => {
    client = socket;
    socket.on("error", () => {});
    socket.write(`${options.greeting ?? fakeGreeting}\r\n`);
    let text = "";
    socket.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
      const lines = text.split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) reply(socket, JSON.parse(line) as FakeCommand);
    });
  });
  function reply(socket: Socket, command: FakeCommand): void {
    const said = command.execute === "qmp_capabilities" ? { return: {} } : answer(command);
    socket.write(typeof said === "string" ? said : `${JSON.stringify({ ...said, id: command.id })}\r\n`);
  }
  server.listen(path);
  await once(server, "listening");
  return {
    path,
    say: (text) => void client?.write(text),
    hangUp: () => void client?.destroy(),
    async [Symbol.asyncDispose]() {
      client?.destroy();
      server.close();
      await once(server, "close");
      await rm(path, { force: true });
    },
  };
}
