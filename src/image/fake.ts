import type { RecordKind, RecordWrite, Store, StoredRecord } from "../runtime/ports.ts";
import type { LayerMounter } from "./layers/layer-mounter.ts";

/** A store in memory; survives a room that is closed and opened again over it. */
export class MemoryStore implements Store {
  readonly #records = new Map<string, { readonly kind: RecordKind; readonly id: string; readonly value: unknown }>();

  async write(writes: readonly RecordWrite[]): Promise<void> {
    await Promise.resolve();
    for (const write of writes) {
      const key = `${write.kind}/${write.id}`;
      if (write.op === "put") this.#records.set(key, { kind: write.kind, id: write.id, value: structuredClone(write.value) });
      else this.#records.delete(key);
    }
  }

  async list(kind: RecordKind): Promise<readonly StoredRecord[]> {
    await Promise.resolve();
    return [...this.#records.values()]
      .filter((record) => record.kind === kind)
      .map(({ id, value }) => ({ id, value: structuredClone(value) }));
  }
}

/** Mounts nothing and remembers what would be. */
export class FakeLayerMounter implements LayerMounter {
  /** Blob by mount point. */
  readonly mounts = new Map<string, string>();

  async mount(blob: string, target: string): Promise<void> {
    await Promise.resolve();
    if (this.mounts.has(target)) throw new Error(`mounted twice: ${target}`);
    this.mounts.set(target, blob);
  }

  async unmount(target: string): Promise<void> {
    await Promise.resolve();
    this.mounts.delete(target);
  }

  async mounted(dir: string): Promise<readonly string[]> {
    await Promise.resolve();
    return [...this.mounts.keys()].filter((target) => target.startsWith(`${dir}/`));
  }
}
