/** A generator of pseudo-random choices that are the same for the same seed (SplitMix32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** 32 bits. */
  next(): number {
    this.#state = (this.#state + 0x9e37_79b9) | 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0_aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a_2d97);
    return (mixed ^ (mixed >>> 15)) >>> 0;
  }

  /** From 0 to `limit`, that one left out. */
  below(limit: number): number {
    return Math.floor((this.next() / 0x1_0000_0000) * limit);
  }

  /** Mostly small, now and then up to `limit`: the logarithm is even. */
  skewed(limit: number): number {
    return Math.floor(Math.exp((this.next() / 0x1_0000_0000) * Math.log(limit)));
  }

  chance(probability: number): boolean {
    return this.next() < probability * 0x1_0000_0000;
  }

  pick<T>(choices: readonly [T, ...(readonly T[])]): T {
    return choices[this.below(choices.length)] ?? choices[0];
  }

  bytes(count: number): Buffer {
    const bytes = Buffer.alloc(count);
    for (let index = 0; index < count; index++) bytes[index] = this.next();
    return bytes;
  }
}
