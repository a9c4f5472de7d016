import assert from "node:assert/strict";
import { once } from "node:events";
import { chmod, mkdtempDisposable, writeFile } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";

import { Dialer } from "./dialer.ts";

const never = new AbortController().signal;

/** Stands in for auraed with Node's own side of the channel. A namespace of that name makes it end, or say nothing. */
const child = `
const { createConnection } = require("node:net");
process.on("message", ({ id, netns, port }) => {
  if (netns === "end") process.exit(1);
  if (netns === "silent") return;
  const socket = createConnection({ host: "127.0.0.1", port });
  socket.once("connect", () => process.send({ id }, socket));
  socket.once("error", (error) => process.send({ id, error: error.code }));
});`;

class Bed implements AsyncDisposable {
  readonly dialer: Dialer;
  readonly port: number;
  readonly #server: Server;
  readonly #resources: AsyncDisposableStack;

  private constructor(parts: { dialer: Dialer; port: number; server: Server; resources: AsyncDisposableStack }) {
    this.dialer = parts.dialer;
    this.port = parts.port;
    this.#server = parts.server;
    this.#resources = parts.resources;
  }

  static async open(): Promise<Bed> {
    await using stack = new AsyncDisposableStack();
    const { path } = stack.use(await mkdtempDisposable(join(tmpdir(), "aurae-cri-dialer-")));
    const program = join(path, "auraed");
    await writeFile(join(path, "child.cjs"), child);
    await writeFile(program, `#!/bin/sh\n[ "$1" = dial ] && exec '${process.execPath}' '${path}/child.cjs'\n`);
    await chmod(program, 0o755);
    const server = createServer({ allowHalfOpen: true });
    const accepted = new Set<Socket>();
    server.on("connection", (socket) => accepted.add(socket));
    stack.defer(() => {
      for (const socket of accepted) socket.destroy();
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    stack.defer(() => void server.close());
    const address = server.address();
    assert.ok(typeof address === "object" && address !== null);
    const dialer = stack.use(new Dialer(program));
    return new Bed({ dialer, port: address.port, server, resources: stack.move() });
  }

  /** The other end of what is dialled next. */
  async accept(): Promise<Socket> {
    const [socket] = (await once(this.#server, "connection")) as [Socket];
    return socket;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources[Symbol.asyncDispose]();
  }
}

/** What comes until the other side half-closes. */
async function text(socket: Socket): Promise<string> {
  let all = "";
  for await (const bytes of socket.iterator({ destroyOnReturn: false })) all += String(bytes);
  return all;
}

describe("dialer", { timeout: 60_000 }, () => {
  it("gives connections whose directions end by themselves", async () => {
    await using bed = await Bed.open();
    const accepted = bed.accept();
    const ours = await bed.dialer.dial("", bed.port, { signal: never });
    const theirs = await accepted;
    theirs.end("hello");
    assert.equal(await text(ours), "hello");
    ours.end("late");
    assert.equal(await text(theirs), "late");
  });

  it("says why there is none", async () => {
    await using bed = await Bed.open();
    const unused = createServer().listen(0, "127.0.0.1");
    await once(unused, "listening");
    const address = unused.address();
    unused.close();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const expected = { fact: { code: "ERR_DIAL", port }, message: `nothing answers on port ${port} of the pod: ECONNREFUSED` };
    await assert.rejects(bed.dialer.dial("", port, { signal: never }), expected);
    using missing = new Dialer("/no/auraed");
    await assert.rejects(missing.dial("", 80, { signal: never }), /nothing answers on port 80 of the pod: .*ENOENT/);
  });

  it("is given up by the signal; a connection that comes all the same is closed", async () => {
    await using bed = await Bed.open();
    await assert.rejects(bed.dialer.dial("silent", bed.port, { signal: AbortSignal.timeout(300) }), /given up/);
    await assert.rejects(bed.dialer.dial("", bed.port, { signal: AbortSignal.abort() }), /given up/);
    const controller = new AbortController();
    const accepted = bed.accept();
    const dialling = bed.dialer.dial("", bed.port, { signal: controller.signal });
    controller.abort();
    await assert.rejects(dialling, /given up/);
    assert.equal(await text(await accepted), "");
  });

  it("starts auraed again after it has ended, whose dials fail", async () => {
    await using bed = await Bed.open();
    const waiting = bed.dialer.dial("silent", bed.port, { signal: never });
    await assert.rejects(Promise.all([waiting, bed.dialer.dial("end", bed.port, { signal: never })]), /auraed dial has ended/);
    const socket = await bed.dialer.dial("", bed.port, { signal: never });
    socket.destroy();
  });
});
