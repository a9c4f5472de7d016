import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";

import { type Behaviour, FakeAuraed, portOf } from "../agent/fake-auraed.ts";
import { SocketConnection } from "./pod-connection.ts";

const never = new AbortController().signal;

async function open(auraed: FakeAuraed, behaviour: Behaviour, signal: AbortSignal = never): Promise<SocketConnection> {
  return new SocketConnection(await auraed.dial(portOf(behaviour)), { signal });
}

/** All the bytes; `onEnd` at the pod's half-close. */
async function read(connection: SocketConnection, onEnd: () => void): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const bytes of connection.incoming(async () => onEnd())) pieces.push(bytes);
  return Buffer.concat(pieces);
}

describe("connection to a flat pod", { timeout: 60_000 }, () => {
  it("carries bytes both ways until both sides have half-closed", async () => {
    await using auraed = await FakeAuraed.listen();
    using connection = await open(auraed, "echo");
    const sent = randomBytes(3_000_000);
    let ended = false;
    const reading = read(connection, () => (ended = true));
    for (let offset = 0; offset < sent.length; offset += 70_001) await connection.write(sent.subarray(offset, offset + 70_001));
    assert.equal(ended, false);
    await connection.end();
    assert.ok((await reading).equals(sent));
    assert.equal(ended, true);
  });

  it("stays open for the client after the pod's half-close", async () => {
    await using auraed = await FakeAuraed.listen();
    using connection = await open(auraed, "end");
    const podEnded = Promise.withResolvers<void>();
    const reading = read(connection, podEnded.resolve);
    await podEnded.promise;
    assert.equal(auraed.open, 1);
    await connection.write(Buffer.from("late"));
    await connection.end();
    assert.equal((await reading).length, 0);
  });

  it("tells when the pod breaks it off, after what came before", async () => {
    await using auraed = await FakeAuraed.listen();
    using connection = await open(auraed, "break");
    const seen: string[] = [];
    const reading = (async () => {
      for await (const bytes of connection.incoming(async () => assert.fail("no half-close"))) seen.push(bytes.toString());
    })();
    await assert.rejects(reading, { code: "ECONNRESET" });
    assert.deepEqual(seen, ["so far"]);
  });

  it("is given up by the signal", async () => {
    await using auraed = await FakeAuraed.listen();
    const controller = new AbortController();
    using connection = await open(auraed, "deaf", controller.signal);
    const reading = read(connection, () => {});
    controller.abort();
    await reading;
    using late = await open(auraed, "echo", controller.signal);
    assert.equal((await read(late, () => {})).length, 0);
    while (auraed.open > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  });
});
