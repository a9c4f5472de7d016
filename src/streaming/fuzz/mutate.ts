import type { Random } from "./random.ts";

/** Makes one frame lie about itself: its length, its stream, its flags. Must not change the frame that it is given. */
export type Lie = (random: Random, frame: Buffer) => Buffer;

export interface Menu {
  readonly count: number;
  readonly lies: readonly [Lie, ...Lie[]];
  /** Frames that no sound client sends. */
  readonly trouble: (random: Random) => readonly Buffer[];
}

/** A conversation with `count` things wrong. */
export function mutate(random: Random, pieces: readonly Buffer[], menu: Menu): readonly Buffer[] {
  let changed = pieces;
  for (let index = 0; index < menu.count; index++) changed = change(random, changed, menu);
  return changed;
}

function change(random: Random, pieces: readonly Buffer[], menu: Menu): readonly Buffer[] {
  const at = random.below(pieces.length);
  const piece = pieces[at];
  if (piece === undefined) return menu.trouble(random);
  switch (random.below(10)) {
    case 0:
      return pieces.toSpliced(at, 1);
    case 1:
      return pieces.toSpliced(random.below(pieces.length), 0, piece);
    case 2: {
      const other = random.below(pieces.length);
      return pieces.with(at, pieces[other] ?? piece).with(other, piece);
    }
    case 3:
      return pieces.with(at, piece.subarray(0, random.below(piece.length)));
    case 4:
      return pieces.slice(0, at + 1);
    case 5:
      return pieces.with(at, flipBytes(random, piece));
    case 6:
      return pieces.toSpliced(at, 0, random.bytes(random.skewed(200)));
    case 7:
      return pieces.toSpliced(at, 0, ...menu.trouble(random));
    default:
      return pieces.with(at, random.pick(menu.lies)(random, piece));
  }
}

export function flipBytes(random: Random, bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  for (let count = random.skewed(8); count > 0 && copy.length > 0; count--) copy[random.below(copy.length)] = random.next();
  return copy;
}

/** `bytes` with a number written over those at `offset`; unchanged where there are none. */
export function overwrite(bytes: Buffer, offset: number, size: number, value: number): Buffer {
  if (bytes.length < offset + size) return bytes;
  const copy = Buffer.from(bytes);
  copy.writeUIntBE(value, offset, size);
  return copy;
}
