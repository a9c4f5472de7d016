import type { AttachStreamRequest, ExecStreamRequest } from "../../runtime/stream-request.ts";
import { type Lie, overwrite } from "./mutate.ts";
import type { Random } from "./random.ts";

const CONTINUATION = 0;
const TEXT = 1;
const BINARY = 2;
const CLOSE = 8;
const PING = 9;
const PONG = 10;
const FIN = 0x80;
const MASKED = 0x80;

/** The frames of an exec or attach that goes well. */
export function websocketProcess(random: Random, request: ExecStreamRequest | AttachStreamRequest, protocol: string): Buffer[] {
  const message = messagesOf(random, protocol);
  const frames: Buffer[] = [];
  if (request.terminal) frames.push(message(4, Buffer.from('{"Width":80,"Height":24}')));
  if (request.stdin) {
    for (let count = random.skewed(12); count > 0; count--) frames.push(message(0, Buffer.alloc(random.skewed(40_000), count)));
    if (protocol.startsWith("v5")) frames.push(frame(random, FIN | BINARY, Buffer.from([255, 0])));
  }
  frames.push(frame(random, FIN | random.pick([PING, PONG]), Buffer.from("there?")));
  if (random.chance(0.5)) frames.push(frame(random, FIN | CLOSE, Buffer.from([0x03, 0xe8])));
  return frames;
}

/** The frames of a client of the old port-forward. */
export function websocketForwarding(random: Random, ports: readonly number[], protocol: string): Buffer[] {
  const message = messagesOf(random, protocol);
  return Array.from({ length: random.skewed(30) }, (_, index) =>
    message(random.below(ports.length) * 2, Buffer.alloc(random.skewed(40_000), index)),
  );
}

function messagesOf(random: Random, protocol: string): (channel: number, bytes: Buffer) => Buffer {
  return (channel, bytes) =>
    protocol.includes("base64")
      ? frame(random, FIN | TEXT, Buffer.from(`${channel}${bytes.toString("base64")}`))
      : frame(random, FIN | BINARY, Buffer.concat([Buffer.from([channel]), bytes]));
}

/** A stream of bytes in messages that are cut anywhere. */
export function inWebSocket(random: Random, pieces: readonly Buffer[]): Buffer[] {
  const bytes = Buffer.concat(pieces);
  const frames: Buffer[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    const size = random.skewed(20_000);
    frames.push(frame(random, FIN | BINARY, bytes.subarray(offset, offset + size)));
    offset += size;
  }
  return frames;
}

export const WEBSOCKET_LIES: readonly [Lie, ...Lie[]] = [
  // Flags and kind.
  (random, bytes) => overwrite(bytes, 0, 1, random.next() & 0xff),
  // Mask and length.
  (random, bytes) => overwrite(bytes, 1, 1, random.next() & 0xff),
  (_, bytes) => overwrite(bytes, 1, 1, 126),
  (random, bytes) => overwrite(bytes, 2, 2, random.pick([0, 1, 125, 0xffff])),
  // The channel, or what its mask makes of it.
  (random, bytes) => overwrite(bytes, 6, 1, random.next() & 0xff),
];

/** Frames of absurd sizes and kinds, messages in many parts, floods. */
export function websocketTrouble(random: Random): Buffer[] {
  switch (random.below(10)) {
    case 0:
      return [Buffer.concat([Buffer.from([FIN | BINARY, MASKED | 127]), Buffer.alloc(8, 0x7f), random.bytes(100)])];
    case 1:
      return [Buffer.concat([Buffer.from([FIN | BINARY, MASKED | 127, 0, 0, 0, 0, 0, 0x10, 0, 1]), random.bytes(4096)])];
    case 2:
      return [frame(random, FIN | BINARY, Buffer.alloc(1024 * 1024, random.below(6)))];
    case 3:
      return [
        frame(random, BINARY, Buffer.from([0])),
        ...Array.from({ length: random.skewed(5000) }, () => frame(random, CONTINUATION, random.bytes(10))),
      ];
    case 4:
      return Array.from({ length: random.skewed(10_000) }, () => frame(random, FIN | PING, Buffer.alloc(random.below(125))));
    case 5:
      return [frame(random, FIN | CLOSE, random.bytes(random.below(8))), frame(random, FIN | BINARY, Buffer.from([0, 1, 2]))];
    case 6:
      return [frame(random, FIN | TEXT, random.bytes(random.skewed(200)))];
    case 7:
      return Array.from({ length: random.skewed(10_000) }, () => frame(random, FIN | BINARY, Buffer.from([random.below(6), 1])));
    case 8:
      return [
        frame(random, FIN | BINARY, Buffer.from([255, ...random.bytes(random.below(3))])),
        frame(random, FIN | BINARY, Buffer.alloc(0)),
      ];
    default:
      return [frame(random, random.next() & 0xff, random.bytes(random.below(130)))];
  }
}

/** One frame as a client sends it: masked. `first`: its flags and kind. */
function frame(random: Random, first: number, payload: Buffer): Buffer {
  const size = payload.length;
  const head = Buffer.alloc(size < 126 ? 2 : size < 0x1_0000 ? 4 : 10);
  head[0] = first;
  head[1] = MASKED | (size < 126 ? size : size < 0x1_0000 ? 126 : 127);
  if (head.length === 4) head.writeUInt16BE(size, 2);
  if (head.length === 10) head.writeUInt32BE(size, 6);
  const mask = random.bytes(4);
  const masked = Buffer.from(payload);
  for (let index = 0; index < size; index++) masked[index] = (payload[index] ?? 0) ^ (mask[index % 4] ?? 0);
  return Buffer.concat([head, mask, masked]);
}
