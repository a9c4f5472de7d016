import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { WebSocket } from "ws";
import { portOf } from "../agent/fake-auraed.ts";
import type { StreamRequest } from "../runtime/stream-request.ts";
import { CONTAINER_ID, execRequest, POD_ID, TestBed } from "./test-bed.ts";

const ECHO_PORT = portOf("echo");
const GREETING_PORT = portOf("greet");

/** A client for tests: keeps what each channel got. */
class Client implements Disposable {
  readonly messages: { readonly channel: number; readonly bytes: Buffer }[] = [];
  readonly websocket: WebSocket;
  readonly #base64: boolean;
  readonly #closed: Promise<number>;

  constructor(url: string, subprotocol: string) {
    this.#base64 = subprotocol.includes("base64.");
    this.websocket = new WebSocket(url, subprotocol === "" ? [] : [subprotocol], { perMessageDeflate: false });
    this.#closed = once(this.websocket, "close").then(([code]) => code as number);
    this.#closed.catch(() => {});
    this.websocket.on("message", (data: Buffer, isBinary) => {
      assert.equal(isBinary, !this.#base64);
      const channel = data.readUInt8(0) - (this.#base64 ? 0x30 : 0);
      this.messages.push({ channel, bytes: this.#base64 ? Buffer.from(data.toString("latin1", 1), "base64") : data.subarray(1) });
    });
  }

  static async open(bed: TestBed, request: StreamRequest, subprotocol: string): Promise<Client> {
    const client = new Client(bed.url(request), subprotocol);
    await once(client.websocket, "open");
    return client;
  }

  send(channel: number, text: string | Buffer): void {
    const bytes = Buffer.from(text);
    this.websocket.send(this.#base64 ? `${channel}${bytes.toString("base64")}` : Buffer.concat([Buffer.from([channel]), bytes]));
  }

  text(channel: number): string {
    return Buffer.concat(this.messages.filter((message) => message.channel === channel).map(({ bytes }) => bytes)).toString("latin1");
  }

  async until(channel: number, text: string | RegExp): Promise<void> {
    await until(() => (typeof text === "string" ? this.text(channel) === text : text.test(this.text(channel))));
  }

  /** The close code, when the server has closed. */
  end(): Promise<number> {
    return this.#closed;
  }

  [Symbol.dispose](): void {
    this.websocket.terminate();
  }
}

const all = ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io", ""];
const withStdin = { stdin: true, stderr: false };

describe("exec and attach over WebSocket", { timeout: 60_000 }, () => {
  for (const subprotocol of all) {
    it(`'${subprotocol}': an empty message first, output, the status, the end`, async () => {
      await using bed = await TestBed.open();
      using client = await Client.open(bed, execRequest(["exit", "7"]), subprotocol);
      assert.equal(await client.end(), 1000);
      assert.deepEqual(
        client.messages.map(({ channel }) => channel),
        [1, 1, 2, 3],
      );
      assert.equal(client.messages[0]?.bytes.length, 0);
      assert.deepEqual([client.text(1), client.text(2)], ["out", "err"]);
      const words = "command terminated with non-zero exit code: 7";
      if (/^v[45]/.test(subprotocol)) assert.equal(JSON.parse(client.text(3)).details.causes[0].message, "7");
      else assert.equal(client.text(3), words);
    });

    it(`'${subprotocol}': input of any bytes comes back`, async () => {
      await using bed = await TestBed.open();
      using client = await Client.open(bed, execRequest(["echo"], withStdin), subprotocol);
      const bytes = Buffer.from(Array.from({ length: 40_000 }, (_, index) => index % 256));
      client.send(0, bytes);
      client.send(0, "end");
      await until(() => client.text(1).length === bytes.length + 3);
      assert.equal(client.text(1), `${bytes.toString("latin1")}end`);
    });
  }

  it("the empty message comes on the lowest channel that is written", async () => {
    await using bed = await TestBed.open();
    using errors = await Client.open(bed, execRequest(["echo"], { stdin: true, stdout: false }), "v4.channel.k8s.io");
    await until(() => errors.messages.length > 0);
    using silent = await Client.open(bed, execRequest(["echo"], { stdin: true, stdout: false, stderr: false }), "v4.channel.k8s.io");
    await until(() => silent.messages.length > 0);
    assert.deepEqual([errors.messages[0]?.channel, silent.messages[0]?.channel], [2, 3]);
  });

  it("v5 half-closes stdin; in v4 the same message is none", async () => {
    await using bed = await TestBed.open();
    using v5 = await Client.open(bed, execRequest(["echo"], withStdin), "v5.channel.k8s.io");
    v5.send(0, "x");
    v5.send(255, Buffer.from([0]));
    assert.equal(await v5.end(), 1000);
    assert.equal(v5.text(1), "x");
    assert.match(v5.text(3), /Success/);
    using v4 = await Client.open(bed, execRequest(["echo"], withStdin), "v4.channel.k8s.io");
    v4.send(255, Buffer.from([0]));
    v4.send(0, "y");
    await v4.until(1, "y");
  });

  it("a terminal has its window", async () => {
    await using bed = await TestBed.open();
    const request = execRequest(["echo"], { terminal: true, ...withStdin });
    for (const subprotocol of ["v5.channel.k8s.io", "base64.channel.k8s.io"]) {
      using client = await Client.open(bed, request, subprotocol);
      client.send(4, '{"Width":80,"Height":24}');
      await client.until(1, /^80x24\n/);
      client.send(4, '{"Width":132,"Height":43}');
      await client.until(1, /132x43\n$/);
    }
  });

  it("channels that are none of the client's are ignored", async () => {
    await using bed = await TestBed.open();
    using client = await Client.open(bed, execRequest(["echo"], withStdin), "v5.channel.k8s.io");
    for (const channel of [1, 2, 3, 4, 9, 254]) client.send(channel, "noise");
    client.websocket.send(Buffer.alloc(0));
    client.send(0, "there");
    await client.until(1, "there");
  });

  it("a message in fragments is one; one of more than 1 MiB ends the connection", async () => {
    await using bed = await TestBed.open();
    using client = await Client.open(bed, execRequest(["echo"], withStdin), "v5.channel.k8s.io");
    client.websocket.send(Buffer.from([0, 0x61]), { fin: false });
    client.websocket.send(Buffer.from("bc"), { fin: true });
    await client.until(1, "abc");
    client.websocket.send(Buffer.alloc(1024 * 1024 + 1));
    assert.equal(await client.end(), 1009);
    await until(() => bed.auraed.givenUp === 1);
  });

  it("pings are answered", async () => {
    await using bed = await TestBed.open();
    using client = await Client.open(bed, execRequest(["deaf"]), "v5.channel.k8s.io");
    const pong = once(client.websocket, "pong");
    client.websocket.ping("are you there");
    assert.equal(String((await pong)[0]), "are you there");
  });

  it("a lost client gives the program up, a client that is idle too", async () => {
    await using bed = await TestBed.open({ idleTimeoutMs: 700 });
    using lost = await Client.open(bed, execRequest(["deaf"]), "v5.channel.k8s.io");
    await until(() => bed.auraed.open === 1);
    lost.websocket.terminate();
    await until(() => bed.auraed.givenUp === 1);
    using idle = await Client.open(bed, execRequest(["deaf"]), "v5.channel.k8s.io");
    await idle.end();
    await until(() => bed.auraed.givenUp === 2);
  });

  it("attach ends with the container", async () => {
    await using bed = await TestBed.open();
    const request = { kind: "attach", containerId: CONTAINER_ID, terminal: false, stdin: true, stdout: true, stderr: false } as const;
    using client = await Client.open(bed, request, "v5.channel.k8s.io");
    client.send(0, "hello");
    client.send(255, Buffer.from([0]));
    assert.equal(await client.end(), 1000);
    assert.equal(client.text(1), "hello");
    assert.match(client.text(3), /"status":"Success"/);
  });

  it("when the daemon stops, the client is told why", async () => {
    await using bed = await TestBed.open();
    using client = await Client.open(bed, execRequest(["deaf"]), "v5.channel.k8s.io");
    await until(() => bed.auraed.open === 1);
    await bed.stop();
    assert.equal(await client.end(), 1000);
    assert.match(client.text(3), /"message":"the daemon is shutting down"/);
  });
});

describe("port-forward over two channels a port", { timeout: 60_000 }, () => {
  const forward = (...ports: readonly number[]) => ({ kind: "portforward", podId: POD_ID, ports }) as const;
  const little = (port: number) => Buffer.from([port & 0xff, port >> 8]).toString("latin1");

  for (const subprotocol of ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""]) {
    it(`'${subprotocol}': the port is the first message of both channels, then bytes both ways`, async () => {
      await using bed = await TestBed.open();
      using client = await Client.open(bed, forward(GREETING_PORT, ECHO_PORT), subprotocol);
      await client.until(0, `${little(GREETING_PORT)}hello`);
      client.send(2, "one ");
      client.send(2, "two");
      await client.until(2, `${little(ECHO_PORT)}one two`);
      assert.deepEqual([client.text(1), client.text(3)], [little(GREETING_PORT), little(ECHO_PORT)]);
    });
  }

  it("the end of every port is the end of the connection", async () => {
    await using bed = await TestBed.open();
    using client = await Client.open(bed, forward(GREETING_PORT), "v4.channel.k8s.io");
    assert.equal(await client.end(), 1000);
    assert.equal(client.text(0), `${little(GREETING_PORT)}hello`);
  });

  it("a port where nobody listens is told on its error channel; the others go on", async () => {
    await using bed = await TestBed.open();
    using client = await Client.open(bed, forward(513, ECHO_PORT), "v4.channel.k8s.io");
    await client.until(1, `${little(513)}cannot forward to port 513: port 513: connection refused`);
    client.send(0, "to nobody");
    client.send(2, "there");
    await client.until(2, `${little(ECHO_PORT)}there`);
  });

  it("a client that leaves ends every connection", async () => {
    await using bed = await TestBed.open();
    using client = await Client.open(bed, forward(ECHO_PORT, ECHO_PORT), "v4.channel.k8s.io");
    await until(() => bed.auraed.open === 2);
    client.websocket.close();
    await until(() => bed.auraed.open === 0);
  });

  it("requests without ports, or with more than there are channels, are refused", async () => {
    await using bed = await TestBed.open();
    const many = Array.from({ length: 129 }, () => ECHO_PORT);
    for (const [request, subprotocol, answer] of [
      [forward(), "v4.channel.k8s.io", 400],
      [forward(...many), "v4.channel.k8s.io", 400],
      [forward(...many.slice(0, 40)), "v4.base64.channel.k8s.io", 400],
      [forward(ECHO_PORT), "v5.channel.k8s.io", 403],
    ] as const) {
      const client = new Client(bed.url(request), subprotocol);
      const [error] = await once(client.websocket, "error");
      assert.match(String(error), new RegExp(`: ${answer}$`), subprotocol);
    }
  });
});

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await delay(5);
}
