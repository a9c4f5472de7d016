import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";

import { BEHAVIOURS, BehavingAuraed, type Behaviour } from "./fake.ts";
import type { PortStream } from "./port-stream.ts";

const portOf = (behaviour: Behaviour) => BEHAVIOURS.indexOf(behaviour) + 1;
const never = new AbortController().signal;

async function open(auraed: BehavingAuraed, behaviour: Behaviour, signal: AbortSignal = never): Promise<PortStream> {
  const stream = await auraed.agent.openPort(portOf(behaviour), signal);
  assert.ok(stream !== undefined);
  return stream;
}

/** All the bytes; `onEnd` at the pod's half-close. */
async function read(stream: PortStream, onEnd: () => void): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const output of stream.outputs()) {
    if (output.kind === "data") pieces.push(output.bytes);
    else onEnd();
  }
  return Buffer.concat(pieces);
}

describe("port stream", { timeout: 60_000 }, () => {
  it("carries bytes both ways until both sides have half-closed", async () => {
    await using auraed = await BehavingAuraed.start("flat");
    using stream = await open(auraed, "echo");
    const sent = randomBytes(3_000_000);
    let ended = false;
    const reading = read(stream, () => (ended = true));
    for (let offset = 0; offset < sent.length; offset += 70_001) await stream.write(sent.subarray(offset, offset + 70_001));
    assert.equal(ended, false);
    stream.end();
    assert.ok((await reading).equals(sent));
    assert.equal(ended, true);
  });

  it("stays open for the client after the pod's half-close", async () => {
    await using auraed = await BehavingAuraed.start("flat");
    using stream = await open(auraed, "end");
    const podEnded = Promise.withResolvers<void>();
    const reading = read(stream, podEnded.resolve);
    await podEnded.promise;
    assert.equal(auraed.openCalls, 1);
    await stream.write(Buffer.from("late"));
    stream.end();
    assert.equal((await reading).length, 0);
  });

  it("tells in auraed's words why there is no connection, and why it broke", async () => {
    await using auraed = await BehavingAuraed.start("flat");
    await assert.rejects(open(auraed, "refuse"), /^AgentError: nothing listens$/);
    using broken = await open(auraed, "break");
    await assert.rejects(read(broken, assert.fail), /^AgentError: broke off$/);
  });

  it("is given up by the signal, also before it is open", async () => {
    await using auraed = await BehavingAuraed.start("flat");
    const controller = new AbortController();
    using stream = await open(auraed, "deaf", controller.signal);
    const reading = read(stream, assert.fail);
    controller.abort();
    await assert.rejects(reading, { fact: { code: "ERR_AGENT_ABORTED", method: "stream.sock" } });
    await assert.rejects(open(auraed, "echo", controller.signal), /given up/);
  });

  it("is none where auraed has no socket for it", async () => {
    await using auraed = await BehavingAuraed.start("guest");
    assert.equal(await auraed.agent.openPort(portOf("echo"), never), undefined);
  });
});
