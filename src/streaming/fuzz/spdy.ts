import { deflateRawSync, deflateSync, constants as zlib } from "node:zlib";

import type { AttachStreamRequest, ExecStreamRequest } from "../../runtime/stream-request.ts";
import { DICTIONARY } from "../spdy/dictionary.ts";
import {
  controlFrame,
  dataHead,
  FLAG_FIN,
  GOAWAY,
  HEADERS,
  PING,
  RST_STREAM,
  SETTINGS,
  SYN_REPLY,
  SYN_STREAM,
  WINDOW_UPDATE,
} from "../spdy/frames.ts";
import { type Lie, overwrite } from "./mutate.ts";
import type { Random } from "./random.ts";
import { portText } from "./requests.ts";

/** Thousands of them are made: as little memory and work for each as there can be. */
const FLUSH = { finishFlush: zlib.Z_SYNC_FLUSH, level: 1, memLevel: 1, windowBits: 9 };
const MAX_PAIRS = 30;
const IDS: readonly [number, ...number[]] = [0, 1, 2, 3, 5, 7, 9, 0x7fff_fffe, 0x7fff_ffff, 0x8000_0001, 0xffff_ffff];
/** More than the server lets a header block inflate to, from 40 KiB. */
const BOMB = deflateRawSync(Buffer.alloc(40 * 1024 * 1024), { finishFlush: zlib.Z_SYNC_FLUSH });
const EMPTY_BLOCK = deflateRawSync(Buffer.alloc(4), FLUSH);

/** Header blocks of one client, in their order. Each but the first is a piece of deflate that leans on nothing before it. */
class Blocks {
  readonly #dictionary: boolean;
  #begun = false;

  constructor(random: Random) {
    this.#dictionary = random.chance(0.5);
  }

  next(headers: Readonly<Record<string, string>>): Buffer {
    return this.raw(formatHeaders(Object.entries(headers)));
  }

  raw(bytes: Buffer): Buffer {
    if (this.#begun) return deflateRawSync(bytes, FLUSH);
    this.#begun = true;
    return this.#dictionary ? deflateSync(bytes, { ...FLUSH, dictionary: DICTIONARY }) : deflateSync(bytes, FLUSH);
  }
}

/** The frames of an exec or attach that goes well. */
export function spdyProcess(random: Random, request: ExecStreamRequest | AttachStreamRequest): Buffer[] {
  const blocks = new Blocks(random);
  const types = ["error"];
  if (request.stdin) types.push("stdin");
  if (request.stdout) types.push("stdout");
  if (request.stderr) types.push("stderr");
  if (request.terminal) types.push("resize");
  const frames = types.map((streamtype, index) => open(index * 2 + 1, blocks.next({ streamtype })));
  const id = (type: string) => types.indexOf(type) * 2 + 1;
  if (request.terminal) frames.push(data(id("resize"), 0, Buffer.from('{"Width":80,"Height":24}')));
  if (request.stdin) {
    for (let count = random.skewed(12); count > 0; count--) frames.push(data(id("stdin"), 0, Buffer.alloc(random.skewed(40_000), count)));
    frames.push(aside(random), data(id("stdin"), FLAG_FIN, Buffer.alloc(0)));
  }
  return frames;
}

/** The frames of a client that has some connections forwarded. */
export function spdyForwarding(random: Random): Buffer[] {
  const blocks = new Blocks(random);
  const frames: Buffer[] = [];
  const named = random.chance(0.8);
  for (let pair = random.skewed(MAX_PAIRS), id = 1; pair > 0; pair--, id += 4) {
    const common = { port: portText(random), ...(named ? { requestid: String(pair) } : {}) };
    frames.push(open(id, blocks.next({ streamtype: "error", ...common })), open(id + 2, blocks.next({ streamtype: "data", ...common })));
    if (random.chance(0.8)) frames.push(data(id, FLAG_FIN, Buffer.alloc(0)));
    for (let count = random.skewed(6); count > 0; count--) frames.push(data(id + 2, 0, Buffer.alloc(random.skewed(60_000), count)));
    frames.push(
      random.pick([
        data(id + 2, FLAG_FIN, Buffer.alloc(0)),
        data(id + 2, FLAG_FIN, Buffer.from("last")),
        controlFrame(RST_STREAM, 0, [id + 2, 5]),
        aside(random),
      ]),
    );
  }
  return frames;
}

/** Frames that any client may send at any time. */
function aside(random: Random): Buffer {
  return random.pick([
    controlFrame(PING, 0, [random.below(1000) * 2 + 1]),
    controlFrame(PING, 0, [random.below(1000) * 2]),
    controlFrame(SETTINGS, 0, [1, 4, 100]),
    controlFrame(WINDOW_UPDATE, 0, [random.pick(IDS), random.next()]),
    controlFrame(GOAWAY, 0, [0, 0]),
  ]);
}

export const SPDY_LIES: readonly [Lie, ...Lie[]] = [
  // The length.
  (random, frame) => overwrite(frame, 5, 3, random.pick([0, 1, 3, frame.length, 0xffff, 0x1_0000, 0x1_0001, 0xff_ffff])),
  (random, frame) => overwrite(frame, 5, 3, Math.max(0, frame.length - 8 + random.below(9) - 4)),
  (random, frame) => overwrite(frame, 4, 1, random.next() & 0xff),
  // The stream of a data frame, then that of a control frame.
  (random, frame) => overwrite(frame, 0, 4, random.pick(IDS)),
  (random, frame) => overwrite(frame, 8, 4, random.pick(IDS)),
  // A control frame's type and version.
  (random, frame) => overwrite(frame, 2, 2, random.below(12)),
  (random, frame) => overwrite(frame, 0, 2, 0x8000 | random.below(6)),
  // Inside its header block.
  (random, frame) => overwrite(frame, 18 + random.below(Math.max(1, frame.length - 18)), 1, random.next() & 0xff),
];

/** Blocks that break off, count wrongly or are huge; floods of small frames. */
export function spdyTrouble(random: Random): Buffer[] {
  const id = random.pick([1, 3, 5, 7, 101, 0x7fff_ffff]);
  const block = (bytes: Buffer) => [open(id, deflateRawSync(bytes, FLUSH))];
  switch (random.below(13)) {
    case 0:
      return [open(id, BOMB)];
    case 1:
      return [controlFrame(HEADERS, 0, [id], BOMB)];
    case 2:
      return block(numbers(0xffff_ffff));
    case 3:
      return block(numbers(1, 0xffff_ffff));
    case 4:
      return block(numbers(8000, ...Array.from({ length: 16_000 }, () => 0)));
    case 5:
      return block(formatHeaders([["streamtype", "x".repeat(60_000)]]));
    case 6:
      return [open(id, Buffer.alloc(0)), open(id + 2, random.bytes(random.skewed(60_000)))];
    case 7:
      return Array.from({ length: random.skewed(1500) }, (_, index) => open(1001 + index * 2, EMPTY_BLOCK));
    case 8:
      return Array.from({ length: random.skewed(20_000) }, (_, index) => controlFrame(PING, 0, [index * 2 + 1]));
    case 9:
      return Array.from({ length: random.skewed(20_000) }, () => data(id, 0, Buffer.alloc(random.below(2))));
    case 10:
      return [dataHead(id, 0, 0xff_ffff), Buffer.alloc(random.skewed(300_000))];
    case 11:
      return [controlFrame(random.below(12), random.next() & 0xff, [], random.bytes(random.below(24)))];
    default:
      return [controlFrame(SYN_REPLY, 0, [id]), controlFrame(RST_STREAM, 0, [id]), controlFrame(SETTINGS, 0, [0xffff_ffff])];
  }
}

function open(id: number, block: Buffer): Buffer {
  return controlFrame(SYN_STREAM, 0, [id, 0], Buffer.concat([Buffer.alloc(2), block]));
}

function data(id: number, flags: number, bytes: Buffer): Buffer {
  return Buffer.concat([dataHead(id, flags, bytes.length), bytes]);
}

function formatHeaders(headers: readonly (readonly [name: string, value: string])[]): Buffer {
  const texts = headers.flat().map((text) => Buffer.concat([numbers(text.length), Buffer.from(text)]));
  return Buffer.concat([numbers(headers.length), ...texts]);
}

function numbers(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, index * 4);
  return bytes;
}
