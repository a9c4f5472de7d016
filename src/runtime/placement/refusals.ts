import type { LateRefusal } from "./late-refusal.ts";

/** Pods remembered at a time: what is forgotten costs its pod one more attempt, no more. */
const MAX_PODS = 1_000;

/** Pods, by the uid of their metadata, that turned out to need the host after they had been placed in a microVM. */
export class Refusals {
  readonly #byUid = new Map<string, LateRefusal>();
  readonly #maxPods: number;

  constructor(options: { readonly maxPods: number } = { maxPods: MAX_PODS }) {
    this.#maxPods = options.maxPods;
  }

  /** The oldest is forgotten when there are too many. */
  remember(podUid: string, refusal: LateRefusal): void {
    this.#byUid.delete(podUid);
    this.#byUid.set(podUid, refusal);
    if (this.#byUid.size <= this.#maxPods) return;
    for (const oldest of this.#byUid.keys()) {
      this.#byUid.delete(oldest);
      return;
    }
  }

  find(podUid: string): LateRefusal | undefined {
    return this.#byUid.get(podUid);
  }
}
