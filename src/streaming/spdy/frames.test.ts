import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";

import { StreamingError } from "../errors.ts";
import { controlFrame, dataHead, FLAG_FIN, type Frame, FrameReader, PING, SYN_STREAM } from "./frames.ts";

function readAll(chunks: readonly Buffer[]): Frame[] {
  const reader = new FrameReader();
  return chunks.flatMap((chunk) => [...reader.push(chunk)]);
}

/** Data pieces of one frame put together. */
function joined(frames: readonly Frame[]): Frame[] {
  const out: Frame[] = [];
  for (const frame of frames) {
    const last = out.at(-1);
    if (frame.kind === "data" && last?.kind === "data" && last.streamId === frame.streamId && !last.fin)
      out[out.length - 1] = { ...frame, bytes: Buffer.concat([last.bytes, frame.bytes]) };
    else out.push(frame);
  }
  return out;
}

const wire = Buffer.concat([
  controlFrame(SYN_STREAM, 0, [1, 0], Buffer.from("block")),
  dataHead(1, 0, 5),
  Buffer.from("hello"),
  controlFrame(PING, 0, [7]),
  dataHead(3, FLAG_FIN, 0),
]);
const expected: readonly Frame[] = [
  { kind: "control", type: SYN_STREAM, flags: 0, payload: Buffer.from("\0\0\0\x01\0\0\0\0block", "latin1") },
  { kind: "data", streamId: 1, bytes: Buffer.from("hello"), fin: false },
  { kind: "control", type: PING, flags: 0, payload: Buffer.from([0, 0, 0, 7]) },
  { kind: "data", streamId: 3, bytes: Buffer.alloc(0), fin: true },
];

describe("FrameReader", () => {
  it("reads frames in one chunk and byte by byte", () => {
    assert.deepEqual(joined(readAll([wire])), expected);
    assert.deepEqual(joined(readAll([...wire].map((byte) => Buffer.from([byte])))), expected);
  });

  it("hands on a large data frame piece by piece, fin with the last", () => {
    const frames = readAll([dataHead(1, FLAG_FIN, 3_000_000), ...Array.from({ length: 3 }, () => Buffer.alloc(1_000_000))]);
    assert.deepEqual(
      frames.map((frame) => frame.kind === "data" && frame.fin),
      [false, false, true],
    );
  });

  it("refuses another version and a control frame that would have to be held", () => {
    assert.throws(() => readAll([Buffer.from([0x80, 2, 0, 1, 0, 0, 0, 0])]), StreamingError);
    assert.throws(() => readAll([Buffer.from([0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff])]), StreamingError);
  });

  it("survives whatever comes", () => {
    for (let round = 0; round < 2000; round++) {
      const noise = randomBytes(200);
      if (round % 2 === 0) noise.writeUInt32BE(0x8003_0000 + (round % 10), 0);
      try {
        readAll([noise.subarray(0, round % 200), noise.subarray(round % 200)]);
      } catch (error) {
        assert.ok(error instanceof StreamingError, String(error));
      }
    }
  });
});
