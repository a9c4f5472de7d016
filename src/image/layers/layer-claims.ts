import { mkdir, rmdir } from "node:fs/promises";
import { basename, join } from "node:path";

import { KeyedQueue } from "../../lib/keyed-queue.ts";
import { type Digest, hexOf } from "../digest.ts";
import type { LayerMounter } from "./layer-mounter.ts";

interface Wait {
  readonly signal: AbortSignal;
}

export interface Claim {
  readonly imageId: Digest;
  readonly diffIds: readonly Digest[];
}

const MAX_WAITING = 4096;

/**
 * Who needs which layers mounted. A layer is mounted once, for the first claim, and stays mounted without one: a mount costs a process, and
 * the image's next container finds it. It goes with the layer's last image, or with the daemon.
 */
export class LayerClaims implements AsyncDisposable {
  readonly #dir: string;
  readonly #mounter: LayerMounter;
  readonly #claims = new Map<string, Claim>();
  readonly #mounted = new Set<string>();
  readonly #queue = new KeyedQueue({ maxWaiting: MAX_WAITING });

  constructor(options: { readonly stateDir: string }, modules: { readonly mounter: LayerMounter }) {
    this.#dir = join(options.stateDir, "layers");
    this.#mounter = modules.mounter;
  }

  async open(): Promise<void> {
    await mkdir(this.#dir, { recursive: true, mode: 0o711 });
    for (const target of await this.#mounter.mounted(this.#dir)) this.#mounted.add(target);
  }

  imageInUse(imageId: Digest): boolean {
    for (const claim of this.#claims.values()) if (claim.imageId === imageId) return true;
    return false;
  }

  layerInUse(diffId: string): boolean {
    for (const claim of this.#claims.values()) if (claim.diffIds.some((claimed) => claimed === diffId)) return true;
    return false;
  }

  /** Says who needs them without touching a mount. */
  claim(owner: string, claim: Claim): void {
    this.#claims.set(owner, claim);
  }

  /** The mount points, uppermost first; each once, for overlayfs refuses a directory twice. */
  async mount(owner: string, claim: Claim, blobPath: (diffId: Digest) => string, { signal }: Wait): Promise<readonly string[]> {
    const fresh = !this.#claims.has(owner);
    this.#claims.set(owner, claim);
    const unique = uppermostFirst(claim.diffIds);
    try {
      await Promise.all(unique.map((diffId) => this.#mountOne(diffId, blobPath(diffId), signal)));
    } catch (error) {
      if (fresh) this.release(owner);
      throw error;
    }
    return unique.map((diffId) => this.#targetOf(diffId));
  }

  /** Answers the image that the owner had claimed. */
  release(owner: string): Digest | undefined {
    const imageId = this.#claims.get(owner)?.imageId;
    this.#claims.delete(owner);
    return imageId;
  }

  /** Takes down every mount that nobody claims and whose layer is not to be kept. */
  async sweep(isKept: (diffId: string) => boolean): Promise<void> {
    await Promise.all([...this.#mounted].filter((target) => !isKept(diffIdOf(target))).map((target) => this.#unmountUnclaimed(target)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sweep(() => false);
    await this.#queue[Symbol.asyncDispose]();
  }

  #targetOf(diffId: Digest): string {
    return join(this.#dir, hexOf(diffId));
  }

  #mountOne(diffId: Digest, blob: string, signal: AbortSignal): Promise<void> {
    const target = this.#targetOf(diffId);
    return this.#queue.run(target, signal, async () => {
      if (this.#mounted.has(target)) return;
      await mkdir(target, { recursive: true, mode: 0o711 });
      await this.#mounter.mount(blob, target, { signal });
      this.#mounted.add(target);
    });
  }

  async #unmountUnclaimed(target: string): Promise<void> {
    const signal = new AbortController().signal;
    await this.#queue.run(target, signal, async () => {
      if (!this.#mounted.has(target) || this.layerInUse(diffIdOf(target))) return;
      await this.#mounter.unmount(target, { signal });
      this.#mounted.delete(target);
      await rmdir(target).catch(() => {});
    });
  }
}

/** A layer that occurs twice counts where it is uppermost. */
export function uppermostFirst(diffIds: readonly Digest[]): readonly Digest[] {
  return [...new Set([...diffIds].reverse())];
}

function diffIdOf(target: string): string {
  return `sha256:${basename(target)}`;
}
