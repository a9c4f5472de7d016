import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { portOf } from "../agent/fake-auraed.ts";
import { controlFrame, FLAG_FIN, RST_STREAM } from "./spdy/frames.ts";
import { SpdyTestClient, switched } from "./spdy-test-client.ts";
import { connectTo, POD_ID, TestBed } from "./test-bed.ts";

const ECHO_PORT = portOf("echo");
const GREETING_PORT = portOf("greet");
const request = { kind: "portforward", podId: POD_ID, ports: [] } as const;

async function connect(bed: TestBed): Promise<SpdyTestClient> {
  const socket = connectTo(bed.url(request), "X-Stream-Protocol-Version: portforward.k8s.io");
  assert.match(await switched(socket), /^HTTP\/1\.1 101 .*X-Stream-Protocol-Version: portforward\.k8s\.io$/s);
  return new SpdyTestClient(socket);
}

/** The ids of a pair. */
async function pair(client: SpdyTestClient, port: number, requestid?: string) {
  const named = requestid === undefined ? {} : { requestid };
  const error = await client.open({ streamtype: "error", port: String(port), ...named }, FLAG_FIN);
  const data = await client.open({ streamtype: "data", port: String(port), ...named });
  return { error, data };
}

describe("port-forward over SPDY", { timeout: 60_000 }, () => {
  it("bytes both ways, half-closes, many pairs", async () => {
    await using bed = await TestBed.open();
    using client = await connect(bed);
    const one = await pair(client, ECHO_PORT, "1");
    const two = await pair(client, ECHO_PORT);
    const three = await pair(client, GREETING_PORT, "3");
    client.send(two.data, "second");
    client.send(one.data, "first");
    client.halfClose(one.data);
    await client.until(`fin ${one.data}`);
    assert.equal(client.text(one.data), "first");
    await client.until(`data ${two.data} second`);
    assert.ok(!client.seen.includes(`fin ${two.data}`));
    // The pod half-closes, and still takes.
    await client.until(`fin ${three.data}`);
    assert.equal(client.text(three.data), "hello");
    client.halfClose(two.data);
    client.halfClose(three.data);
    for (const { error, data } of [two, three]) for (const id of [data, error]) await client.until(`fin ${id}`);
    assert.equal(client.text(one.error) + client.text(two.error) + client.text(three.error), "");
  });

  it("pairs are told apart by request, in any order of their streams", async () => {
    await using bed = await TestBed.open();
    using client = await connect(bed);
    const port = String(ECHO_PORT);
    const data = [
      await client.open({ streamtype: "data", port, requestid: "a" }),
      await client.open({ streamtype: "data", port, requestid: "b" }),
    ];
    for (const requestid of ["b", "a"]) await client.open({ streamtype: "error", port, requestid });
    for (const id of data) client.send(id, `to ${id}`);
    for (const id of data) await client.until(`data ${id} to ${id}`);
  });

  it("nobody listens: a word on that pair's error stream, and the others go on", async () => {
    await using bed = await TestBed.open();
    using client = await connect(bed);
    const bad = await pair(client, 65_535, "1");
    const good = await pair(client, ECHO_PORT, "2");
    await client.until(`fin ${bad.error}`);
    assert.equal(client.text(bad.error), "cannot forward to port 65535: port 65535: connection refused");
    await client.until(`fin ${bad.data}`);
    client.send(good.data, "there");
    await client.until(`data ${good.data} there`);
  });

  it("streams of no type, no port, or that are there already are reset", async () => {
    await using bed = await TestBed.open();
    using client = await connect(bed);
    const port = String(ECHO_PORT);
    const refused = [
      await client.open({ streamtype: "stdin", port }),
      await client.open({ streamtype: "data" }),
      await client.open({ streamtype: "data", port: "0" }),
      await client.open({ streamtype: "data", port: "65536" }),
    ];
    const data = await client.open({ streamtype: "data", port, requestid: "x" });
    refused.push(await client.open({ streamtype: "data", port, requestid: "x" }));
    for (const id of refused) await client.until(`reset ${id}`);
    await client.open({ streamtype: "error", port, requestid: "x" });
    client.send(data, "there");
    await client.until(`data ${data} there`);
  });

  it("a stream whose other half does not come is dropped; the connection stays", async () => {
    await using bed = await TestBed.open({ streamCreationTimeoutMs: 300 });
    using client = await connect(bed);
    const lonely = await client.open({ streamtype: "data", port: String(ECHO_PORT), requestid: "x" });
    await client.until(`reset ${lonely}`);
    const { data } = await pair(client, ECHO_PORT, "y");
    client.send(data, "there");
    await client.until(`data ${data} there`);
  });

  it("a reset ends that connection to the pod, a lost client all of them", async () => {
    await using bed = await TestBed.open();
    using client = await connect(bed);
    const pairs = [await pair(client, ECHO_PORT, "1"), await pair(client, ECHO_PORT, "2"), await pair(client, ECHO_PORT, "3")] as const;
    await until(() => bed.auraed.open === 3);
    client.write(controlFrame(RST_STREAM, 0, [pairs[1].data, 5]));
    await until(() => bed.auraed.open === 2);
    client.destroy();
    await until(() => bed.auraed.open === 0);
  });

  it("an idle client is let go", async () => {
    await using bed = await TestBed.open({ idleTimeoutMs: 500 });
    using client = await connect(bed);
    await pair(client, ECHO_PORT);
    await client.end();
    await until(() => bed.auraed.open === 0);
  });

  it("when the daemon stops, the connection ends", async () => {
    await using bed = await TestBed.open();
    using client = await connect(bed);
    await pair(client, ECHO_PORT);
    await until(() => bed.auraed.open === 1);
    await bed.stop();
    await client.until("goaway");
    await client.end();
  });
});

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await delay(5);
}
