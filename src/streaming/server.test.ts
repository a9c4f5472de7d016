import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempDisposable, readFile, rename, writeFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { get } from "node:https";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { promisify } from "node:util";
import { WebSocket } from "ws";
import { silentLog } from "../lib/log.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { StreamRequest } from "../runtime/stream-request.ts";
import { openStreaming } from "./server.ts";
import { controlFrame, PING, SYN_STREAM } from "./spdy/frames.ts";
import { HeaderCodec } from "./spdy/header-codec.ts";
import { SpdyTestClient, switched } from "./spdy-test-client.ts";
import { connectTo, execRequest, readAll, TestBed } from "./test-bed.ts";

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

const elsewhere = Object.values(networkInterfaces())
  .flatMap((addresses) => addresses ?? [])
  .find(({ internal, family }) => !internal && family === "IPv4");

const v4 = "X-Stream-Protocol-Version: v9.channel.k8s.io, v4.channel.k8s.io";

describe("streaming server", { timeout: 20_000 }, () => {
  it("refuses a client that offers no protocol, or none that is known", async () => {
    await using server = await start();
    assert.match(await readAll(connectTo(server.register(request))), /^HTTP\/1\.1 400 /);
    const refused = await readAll(connectTo(server.register(request), "X-Stream-Protocol-Version: v9.channel.k8s.io"));
    assert.match(refused, /^HTTP\/1\.1 403 /);
    assert.equal(refused.match(/^X-Accepted-Stream-Protocol-Versions: /gm)?.length, 4);
  });

  it("knows no token twice, no other path and no other method", async () => {
    await using server = await start();
    const url = server.register(request);
    assert.match(await readAll(connectTo(url.replace("/exec/", "/attach/"), v4)), /^HTTP\/1\.1 404 /);
    assert.match(await readAll(connectTo(url, v4)), /^HTTP\/1\.1 404 /);
    assert.equal((await fetch(url, { method: "PUT" })).status, 405);
    assert.match(await readAll(connectTo(new URL("/", url).href, v4)), /^HTTP\/1\.1 404 /);
  });

  it("ends a connection whose streams do not come, and says what went wrong on one whose do", async () => {
    await using server = await start();
    assert.match(await readAll(connectTo(server.register(request), v4)), /^HTTP\/1\.1 101 .*X-Stream-Protocol-Version: v4/s);
    const socket = connectTo(server.register(request), v4);
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
      const socket = connectTo(server.register(request), v4);
      const type = round % 10;
      socket.write(controlFrame(type === 0 ? PING : type, round % 4, [round], randomBytes(round * 3)));
      socket.end(randomBytes(500));
      await readAll(socket);
    }
    assert.match(await readAll(connectTo(server.register(request))), /^HTTP\/1\.1 400 /);
  });

  it("beyond the sessions that may be open, clients are asked to come again, and their address stays good", async () => {
    await using bed = await TestBed.open({ maxSessions: 2 });
    const open = [connectTo(bed.url(execRequest(["deaf"])), v4), connectTo(bed.url(execRequest(["deaf"])), v4)];
    for (const socket of open) await once(socket, "data");
    const url = bed.url(execRequest(["deaf"]));
    assert.match(await readAll(connectTo(url, v4)), /^HTTP\/1\.1 429 Too Many Requests\r\nRetry-After: 5\r\n/);
    for (const socket of open) socket.destroy();
    const answer = async () => {
      const socket = connectTo(url, v4);
      const [head] = (await once(socket, "data")) as [Buffer];
      socket.destroy();
      return head.toString();
    };
    while ((await answer()).startsWith("HTTP/1.1 429")) await delay(20);
  });

  it("who comes from elsewhere than the machine itself is cut off", {
    skip: elsewhere === undefined && "no address but loopback",
  }, async () => {
    // `address` is checked by the configuration; here it stands for a pod that reaches a loopback address over a bridge with route_localnet.
    await using bed = await TestBed.open({ address: elsewhere?.address ?? "" });
    assert.equal(await readAll(connectTo(bed.url(execRequest(["deaf"])), v4)), "");
  });
});

const run = promisify(execFile);

/** Makes a certificate for the loopback address, signed by itself. */
async function makePair(directory: string, name: string) {
  const [certFile, keyFile] = [join(directory, `${name}.crt`), join(directory, `${name}.key`)];
  const about = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"];
  await run("openssl", [
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    ...about,
    "-keyout",
    keyFile,
    "-out",
    certFile,
  ]);
  return { certFile, keyFile };
}

/** Name in the certificate that the server shows, and the status of its answer. */
async function whoAnswers(url: string): Promise<{ readonly name: string; readonly status: number | undefined }> {
  const asking = get(url, { rejectUnauthorized: false, agent: false });
  const [response] = (await once(asking, "response")) as [IncomingMessage];
  response.resume();
  const name = (response.socket as TLSSocket).getPeerCertificate().subject.CN;
  await once(response, "close");
  return { name: String(name), status: response.statusCode };
}

describe("streaming server with TLS", { timeout: 60_000 }, () => {
  it("serves WebSocket and SPDY at https addresses, to clients that know the certificate", async () => {
    await using directory = await mkdtempDisposable(join(tmpdir(), "aurae-cri-tls-"));
    const tls = await makePair(directory.path, "first");
    await using bed = await TestBed.open({ tls });
    const url = bed.url(execRequest(["exit", "0"]));
    assert.match(url, /^https:\/\/127\.0\.0\.1:\d+\/exec\//);
    const websocket = new WebSocket(url, "v5.channel.k8s.io", { ca: await readFile(tls.certFile) });
    const [code] = await once(websocket, "close");
    assert.equal(code, 1000);
    const { hostname, port, pathname } = new URL(bed.url(execRequest(["exit", "0"])));
    const socket = connectTls({ host: hostname, port: Number(port), ca: await readFile(tls.certFile), ALPNProtocols: ["h2", "http/1.1"] });
    await once(socket, "secureConnect");
    assert.equal(socket.alpnProtocol, "http/1.1");
    socket.write(`POST ${pathname} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n${v4}\r\n\r\n`);
    assert.match(await switched(socket), /^HTTP\/1\.1 101 /);
    using client = new SpdyTestClient(socket);
    for (const streamtype of ["error", "stdout", "stderr"]) await client.open({ streamtype });
    await client.end();
    assert.match(client.text(1), /Success/);
  });

  it("takes a new pair while it runs; a bad one leaves the old in place", async () => {
    await using directory = await mkdtempDisposable(join(tmpdir(), "aurae-cri-tls-"));
    const first = await makePair(directory.path, "first");
    const second = await makePair(directory.path, "second");
    await using bed = await TestBed.open({ tls: first });
    const url = new URL("/", bed.url(execRequest(["exit", "0"]))).href;
    assert.deepEqual(await whoAnswers(url), { name: "first", status: 404 });
    await writeFile(first.keyFile, "no key");
    await delay(3 * 2000);
    assert.equal((await whoAnswers(url)).name, "first");
    await rename(second.keyFile, first.keyFile);
    await rename(second.certFile, first.certFile);
    while ((await whoAnswers(url)).name !== "second") await delay(100);
  });

  it("does not start with files that cannot be read or do not belong together, and names them", async () => {
    await using directory = await mkdtempDisposable(join(tmpdir(), "aurae-cri-tls-"));
    const { certFile, keyFile } = await makePair(directory.path, "one");
    const other = await makePair(directory.path, "other");
    const missing = join(directory.path, "missing");
    await assert.rejects(TestBed.open({ tls: { certFile: missing, keyFile } }), /streaming\.tls_cert_file: cannot read .*missing .*ENOENT/);
    await assert.rejects(TestBed.open({ tls: { certFile, keyFile: missing } }), /streaming\.tls_key_file: cannot read .*missing/);
    await assert.rejects(TestBed.open({ tls: { certFile, keyFile: other.keyFile } }), /do not make a pair/);
  });
});
