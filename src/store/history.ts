import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";

import type { PodHistory } from "../runtime/ports.ts";

/** Pods kept at a time; a few kilobytes each. */
const MAX_PODS = 1_000;

const EXTENSION = ".json";

/**
 * What is to be known of pods that are gone: a file `<podId>.json` each, the newest of them. Not synced to the disk: a power cut may
 * take the last ones, and no pod's removal waits for it.
 */
export class History implements PodHistory {
  readonly #dir: string;
  readonly #maxPods: number;
  /** Oldest first. */
  readonly #ids: Set<string>;

  private constructor(dir: string, maxPods: number, ids: readonly string[]) {
    this.#dir = dir;
    this.#maxPods = maxPods;
    this.#ids = new Set(ids);
  }

  /** Makes the directory when it is missing. */
  static async open(dir: string, options: { readonly maxPods: number } = { maxPods: MAX_PODS }): Promise<History> {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const history = new History(dir, options.maxPods, await idsByAge(dir));
    await history.#prune();
    return history;
  }

  async keep(podId: string, value: unknown): Promise<void> {
    const path = join(this.#dir, `${podId}${EXTENSION}`);
    const temporary = join(this.#dir, `.${podId}.tmp`);
    await writeFile(temporary, JSON.stringify(value), { mode: 0o600 });
    await rename(temporary, path);
    this.#ids.delete(podId);
    this.#ids.add(podId);
    await this.#prune();
  }

  async #prune(): Promise<void> {
    for (const oldest of this.#ids) {
      if (this.#ids.size <= this.#maxPods) return;
      this.#ids.delete(oldest);
      await rm(join(this.#dir, `${oldest}${EXTENSION}`), { force: true });
    }
  }
}

/** The pods of a history, the one that was kept longest first; empty without a directory. */
export async function idsByAge(dir: string): Promise<readonly string[]> {
  const names = (await readdir(dir).catch(emptyWhenAbsent)).filter((name) => name.endsWith(EXTENSION) && !name.startsWith("."));
  const aged = await Promise.all(
    names.map(async (name) => ({ id: name.slice(0, -EXTENSION.length), mtimeMs: (await stat(join(dir, name))).mtimeMs })),
  );
  return aged.sort((a, b) => a.mtimeMs - b.mtimeMs).map(({ id }) => id);
}

/** What was kept of a pod; `podId` is one of `idsByAge`. Throws for a file that is not whole. */
export async function readHistory(dir: string, podId: string): Promise<unknown> {
  return JSON.parse(await readFile(join(dir, `${podId}${EXTENSION}`), "utf8"));
}

function emptyWhenAbsent(error: unknown): readonly string[] {
  if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
  throw error;
}
