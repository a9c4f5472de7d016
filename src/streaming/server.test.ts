import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createConnection, type Socket } from "node:net";
import { describe, it } from "node:test";

import { silentLog } from "../lib/log.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { StreamRequest } from "../runtime/stream-request.ts";
import { openStreaming } from "./server.ts";
import { controlFrame, PING, SYN_STREAM } from "./spdy/frames.ts";
import { HeaderCodec } from "./spdy/header-codec.ts";

const request: StreamRequest = {
  kind: "exec",
  containerId: "gone",
  command: ["true"],
  terminal: false,
  stdin: false,
  stdout: true,
  stderr: false,
};

/** A server whose runtime holds no container. */
async function start() {
  const runtime = { containers: new Map(), pods: new Map() } as unknown as Runtime;
  const options = { address: "127.0.0.1", port: 0, streamCreationTimeoutMs: 1_000 };
  return await openStreaming(options, { runtime, log: silentLog });
}

function connect(url: string, ...headers: readonly string[]): Socket {
  const { hostname, port, pathname } = new URL(url);
  const socket = createConnection(Number(port), hostname);
  socket.on("error", () => {});
  socket.write([`POST ${pathname} HTTP/1.1`, "Host: x", "Connection: Upgrade", "Upgrade: SPDY/3.1", ...headers, "", ""].join("\r\n"));
  return socket;
}

/** Everything until the server closes. */
async function readAll(socket: Socket): Promise<string> {
  let text = "";
  socket.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
  await once(socket, "close");
  return text;
}

const v4 = "X-Stream-Protocol-Version: v9.channel.k8s.io, v4.channel.k8s.io";

describe("streaming server", { timeout: 20_000 }, () => {
  it("refuses a client that offers no protocol, or none that is known", async () => {
    await using server = await start();
    assert.match(await readAll(connect(server.register(request))), /^HTTP\/1\.1 400 /);
    const refused = await readAll(connect(server.register(request), "X-Stream-Protocol-Version: v9.channel.k8s.io"));
    assert.match(refused, /^HTTP\/1\.1 403 /);
    assert.equal(refused.match(/^X-Accepted-Stream-Protocol-Versions: /gm)?.length, 4);
  });

  it("knows no token twice, no other path and no other method", async () => {
    await using server = await start();
    const url = server.register(request);
    assert.match(await readAll(connect(url.replace("/exec/", "/attach/"), v4)), /^HTTP\/1\.1 404 /);
    assert.match(await readAll(connect(url, v4)), /^HTTP\/1\.1 404 /);
    assert.equal((await fetch(url, { method: "PUT" })).status, 405);
    assert.match(await readAll(connect(new URL("/", url).href, v4)), /^HTTP\/1\.1 404 /);
  });

  it("ends a connection whose streams do not come, and says what went wrong on one whose do", async () => {
    await using server = await start();
    assert.match(await readAll(connect(server.register(request), v4)), /^HTTP\/1\.1 101 .*X-Stream-Protocol-Version: v4/s);
    const socket = connect(server.register(request), v4);
    using codec = new HeaderCodec();
    for (const [index, type] of ["error", "stdout"].entries()) {
      const block = await codec.encode(new Map([["streamtype", type]]));
      socket.write(controlFrame(SYN_STREAM, 0, [index * 2 + 1, 0], Buffer.concat([Buffer.alloc(2), block])));
    }
    assert.match(await readAll(socket), /"status":"Failure","message":"container 'gone' not found"/);
  });

  it("survives noise behind the switch", async () => {
    await using server = await start();
    for (let round = 0; round < 60; round++) {
      const socket = connect(server.register(request), v4);
      const type = round % 10;
      socket.write(controlFrame(type === 0 ? PING : type, round % 4, [round], randomBytes(round * 3)));
      socket.end(randomBytes(500));
      await readAll(socket);
    }
    assert.match(await readAll(connect(server.register(request))), /^HTTP\/1\.1 400 /);
  });
});
