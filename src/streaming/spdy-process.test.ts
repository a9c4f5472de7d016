import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import type { ExecStreamRequest, StreamRequest } from "../runtime/stream-request.ts";
import { controlFrame, FLAG_FIN, PING, RST_STREAM } from "./spdy/frames.ts";
import { SpdyTestClient, switched } from "./spdy-test-client.ts";
import { CONTAINER_ID, connectTo, execRequest, TestBed } from "./test-bed.ts";

/** Connects and opens the streams that `types` name; their ids are 1, 3, 5 in that order. */
async function connect(bed: TestBed, request: StreamRequest, version: string, types: readonly string[]): Promise<SpdyTestClient> {
  const socket = connectTo(bed.url(request), `X-Stream-Protocol-Version: ${version}`);
  assert.match(await switched(socket), new RegExp(`^HTTP/1\\.1 101 .*X-Stream-Protocol-Version: ${version}$`, "s"));
  const client = new SpdyTestClient(socket);
  for (const streamtype of types) await client.open({ streamtype });
  return client;
}

const v4 = "v4.channel.k8s.io";
const stdin: Partial<ExecStreamRequest> = { stdin: true, stderr: false };

describe("exec and attach over SPDY", { timeout: 60_000 }, () => {
  it("every version: output, then its end, then the status, then the end of the connection", async () => {
    await using bed = await TestBed.open();
    for (const version of [v4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"]) {
      using client = await connect(bed, execRequest(["exit", "7"]), version, ["error", "stdout", "stderr"]);
      const seen = (await client.end()).filter((line) => !line.startsWith("reply"));
      const status =
        version === v4
          ? '{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: 7","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}'
          : "command terminated with non-zero exit code: 7";
      assert.deepEqual(seen, ["data 3 out", "data 5 err", "fin 3", "fin 5", `data 1 ${status}`, "fin 1", "goaway", "closed"], version);
    }
  });

  it("every version: success is a status in v4, and silence before", async () => {
    await using bed = await TestBed.open();
    for (const version of [v4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"]) {
      using client = await connect(bed, execRequest(["exit", "0"]), version, ["error", "stdout", "stderr"]);
      await client.end();
      assert.equal(client.text(1), version === v4 ? '{"metadata":{},"status":"Success"}' : "", version);
    }
  });

  it("a program that cannot run is told in the status", async () => {
    await using bed = await TestBed.open();
    using client = await connect(bed, execRequest(["missing"]), v4, ["error", "stdout", "stderr"]);
    await client.end();
    assert.match(client.text(1), /"status":"Failure","message":"missing: no such program","reason":"InternalError","code":500/);
  });

  it("the end of stdin half-closes: what was sent comes back first", async () => {
    await using bed = await TestBed.open();
    using client = await connect(bed, execRequest(["echo"], stdin), v4, ["error", "stdin", "stdout"]);
    client.send(3, "one ");
    client.send(3, "two", FLAG_FIN);
    await client.end();
    assert.equal(client.text(5), "one two");
    assert.match(client.text(1), /Success/);
  });

  it("a terminal has its window before the program starts, and each later one", async () => {
    await using bed = await TestBed.open();
    const request = execRequest(["echo"], { terminal: true, stdin: true, stderr: false });
    using client = await connect(bed, request, v4, ["error", "stdin", "stdout", "resize"]);
    client.send(7, '{"Width":80,"Height":24}');
    await client.until(/^data 5 80x24\n/);
    client.send(7, '{"Width":0,"Height":9}{"Width":132,');
    client.send(7, '"Height":43}');
    await client.until(/^data 5 80x24\n.*132x43\n$/s);
    client.halfClose(3);
    await client.end();
  });

  it("v1 and v2 wait for no window, and refuse one", async () => {
    await using bed = await TestBed.open();
    const request = execRequest(["echo"], { terminal: true, stdin: true, stderr: false });
    for (const version of ["v2.channel.k8s.io", "channel.k8s.io"]) {
      using client = await connect(bed, request, version, ["error", "stdin", "stdout", "resize"]);
      await client.until("reset 7");
      client.halfClose(3);
      await client.end();
    }
  });

  it("a stream that is there already, of no known type or not asked for is reset; the session goes on", async () => {
    await using bed = await TestBed.open();
    using client = await connect(bed, execRequest(["echo"], stdin), v4, ["error", "stdin", "stdin", "stderr", "nonsense", "stdout"]);
    for (const id of [5, 7, 9]) await client.until(`reset ${id}`);
    client.send(5, "lost");
    client.send(3, "kept", FLAG_FIN);
    await client.end();
    assert.equal(client.text(11), "kept");
  });

  it("streams that do not come in time end the connection before the program starts, with a word", async () => {
    await using bed = await TestBed.open({ streamCreationTimeoutMs: 500 });
    using client = await connect(bed, execRequest(["exit", "0"]), v4, ["error", "stdout"]);
    const seen = await client.end();
    const word =
      '{"metadata":{},"status":"Failure","message":"the client did not open its streams in time: stderr","reason":"InternalError","code":500}';
    assert.deepEqual(seen, ["reply 1", "reply 3", "fin 3", `data 1 ${word}`, "fin 1", "goaway", "closed"]);
    assert.equal(bed.auraed.open, 0);
  });

  it("a client that resets stdin only ends it", async () => {
    await using bed = await TestBed.open();
    using client = await connect(bed, execRequest(["echo"], stdin), v4, ["error", "stdin", "stdout"]);
    client.send(3, "x");
    await client.until("data 5 x");
    client.write(controlFrame(RST_STREAM, 0, [3, 5]));
    await client.end();
    assert.match(client.text(1), /Success/);
  });

  it("pings of the client come back, also while a program runs", async () => {
    await using bed = await TestBed.open();
    using client = await connect(bed, execRequest(["deaf"]), v4, ["error", "stdout", "stderr"]);
    client.write(controlFrame(PING, 0, [41]));
    await client.until("ping 41");
  });

  it("broken frames end the connection, and the program is given up", async () => {
    await using bed = await TestBed.open();
    for (const broken of [Buffer.from("8002000100000000", "hex"), Buffer.from("80030001007fffff", "hex")]) {
      const before = bed.auraed.givenUp;
      using client = await connect(bed, execRequest(["deaf"]), v4, ["error", "stdout", "stderr"]);
      await until(() => bed.auraed.open === 1);
      client.write(broken);
      await client.end();
      await until(() => bed.auraed.givenUp === before + 1);
    }
  });

  it("a lost client gives the program up", async () => {
    await using bed = await TestBed.open();
    using client = await connect(bed, execRequest(["deaf"]), v4, ["error", "stdout", "stderr"]);
    await until(() => bed.auraed.open === 1);
    client.destroy();
    await until(() => bed.auraed.givenUp === 1 && bed.auraed.open === 0);
  });

  it("attach ends with the container, without an exit code", async () => {
    await using bed = await TestBed.open();
    const request = { kind: "attach", containerId: CONTAINER_ID, terminal: false, stdin: true, stdout: true, stderr: false } as const;
    using client = await connect(bed, request, v4, ["error", "stdin", "stdout"]);
    client.send(3, "hello", FLAG_FIN);
    await client.end();
    assert.equal(client.text(5), "hello");
    assert.equal(client.text(1), '{"metadata":{},"status":"Success"}');
  });

  it("an idle session ends; one with a byte now and then does not", async () => {
    await using bed = await TestBed.open({ idleTimeoutMs: 1000 });
    using client = await connect(bed, execRequest(["echo"], stdin), v4, ["error", "stdin", "stdout"]);
    for (let round = 0; round < 8; round++) {
      client.send(3, "x");
      await delay(200);
    }
    assert.equal(client.text(5), "x".repeat(8));
    await client.end();
    await until(() => bed.auraed.givenUp === 1);
  });

  it("when the daemon stops, the client is told why", async () => {
    await using bed = await TestBed.open();
    using client = await connect(bed, execRequest(["deaf"]), v4, ["error", "stdout", "stderr"]);
    await until(() => bed.auraed.open === 1);
    await bed.stop();
    await client.end();
    assert.match(client.text(1), /"message":"the daemon is shutting down"/);
    await until(() => bed.auraed.open === 0);
  });

  it("what ends soon may end while the daemon stops", async () => {
    await using bed = await TestBed.open({ drainTimeoutMs: 10_000 });
    using client = await connect(bed, execRequest(["echo"], stdin), v4, ["error", "stdin", "stdout"]);
    client.send(3, "x");
    await client.until("data 5 x");
    const stopping = bed.stop();
    await delay(100);
    client.send(3, "y", FLAG_FIN);
    await client.end();
    assert.equal(client.text(5), "xy");
    assert.match(client.text(1), /Success/);
    await stopping;
  });
});

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await delay(5);
}
