import { spdyError } from "../errors.ts";

/** Of a control frame. Data frames are handed on in pieces and never gathered. */
const MAX_CONTROL_BYTES = 64 * 1024;
const HEAD_BYTES = 8;
const VERSION = 3;

export const SYN_STREAM = 1;
export const SYN_REPLY = 2;
export const RST_STREAM = 3;
export const SETTINGS = 4;
export const PING = 6;
export const GOAWAY = 7;
export const HEADERS = 8;
export const WINDOW_UPDATE = 9;

export const FLAG_FIN = 0x01;
/** RST_STREAM: the stream is not wanted. */
export const REFUSED_STREAM = 3;
/** RST_STREAM: the sender is through with it. */
export const CANCEL = 5;

/** A control frame whole, or a piece of a data frame; `fin` comes with a frame's last piece. */
export type Frame =
  | { readonly kind: "control"; readonly type: number; readonly flags: number; readonly payload: Buffer }
  | { readonly kind: "data"; readonly streamId: number; readonly bytes: Buffer; readonly fin: boolean };

type State =
  | { readonly at: "head" }
  | { readonly at: "control"; readonly type: number; readonly flags: number; readonly length: number }
  | { readonly at: "data"; readonly streamId: number; readonly fin: boolean; left: number };

/** Cuts a byte stream into frames. Holds at most one control frame, or the head of one. Throws `ERR_PROTOCOL`. */
export class FrameReader {
  #state: State = { at: "head" };
  #held: Buffer = Buffer.alloc(0);

  /** The frames that `chunk` completes. The pieces share its memory. */
  *push(chunk: Buffer): Generator<Frame, void, void> {
    let rest = chunk;
    for (;;) {
      if (this.#state.at === "data") {
        const { streamId, fin, left } = this.#state;
        const bytes = rest.subarray(0, left);
        if (bytes.length === 0 && left > 0) return;
        rest = rest.subarray(bytes.length);
        this.#state.left -= bytes.length;
        const last = this.#state.left === 0;
        if (last) this.#state = { at: "head" };
        yield { kind: "data", streamId, bytes, fin: fin && last };
        continue;
      }
      const need = this.#state.at === "head" ? HEAD_BYTES : this.#state.length;
      const taken = rest.subarray(0, need - this.#held.length);
      const whole = this.#held.length === 0 ? taken : Buffer.concat([this.#held, taken]);
      rest = rest.subarray(taken.length);
      if (whole.length < need) {
        this.#held = Buffer.from(whole);
        return;
      }
      this.#held = Buffer.alloc(0);
      if (this.#state.at === "control") {
        const { type, flags } = this.#state;
        this.#state = { at: "head" };
        yield { kind: "control", type, flags, payload: whole };
      } else this.#state = readHead(whole);
    }
  }
}

function readHead(head: Buffer): State {
  const first = head.readUInt32BE(0);
  const flags = head.readUInt8(4);
  const length = head.readUIntBE(5, 3);
  if (first < 0x8000_0000) return { at: "data", streamId: first, fin: (flags & FLAG_FIN) !== 0, left: length };
  const version = (first >>> 16) & 0x7fff;
  if (version !== VERSION) throw spdyError(`version ${version} of the framing, want ${VERSION}`);
  if (length > MAX_CONTROL_BYTES) throw spdyError(`a control frame of ${length} bytes`);
  return { at: "control", type: first & 0xffff, flags, length };
}

/** A control frame whose payload is numbers of 4 bytes, then `tail`. */
export function controlFrame(type: number, flags: number, fields: readonly number[], tail: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(HEAD_BYTES + fields.length * 4);
  head.writeUInt16BE(0x8000 | VERSION, 0);
  head.writeUInt16BE(type, 2);
  head.writeUInt8(flags, 4);
  head.writeUIntBE(fields.length * 4 + tail.length, 5, 3);
  for (const [index, field] of fields.entries()) head.writeUInt32BE(field, HEAD_BYTES + index * 4);
  return Buffer.concat([head, tail]);
}

/** What precedes the bytes of a data frame. */
export function dataHead(streamId: number, flags: number, length: number): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32BE(streamId, 0);
  head.writeUInt8(flags, 4);
  head.writeUIntBE(length, 5, 3);
  return head;
}
