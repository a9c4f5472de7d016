/**
 * For tests: pulls argv[2] into the room at argv[3] with the failpoints of argv[4] armed, until one of them kills the process. Records are
 * in one JSON file, so that they outlive it.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { writeFileAtomic } from "../lib/atomic-write.ts";
import { armFailpoints } from "../lib/failpoint.ts";
import { silentLog } from "../lib/log.ts";
import type { RecordWrite, StoredRecord } from "../runtime/ports.ts";
import { FakeLayerMounter, MemoryStore } from "./fake.ts";
import { type ImageRoom, openImages } from "./images.ts";
import { imageDefaults } from "./options.ts";

/** A `MemoryStore` that is written out after every transaction. */
class FileStore extends MemoryStore {
  readonly #path: string;

  constructor(path: string) {
    super();
    this.#path = path;
  }

  override async write(writes: readonly RecordWrite[]): Promise<void> {
    await super.write(writes);
    const all: { readonly kind: string; readonly records: readonly StoredRecord[] }[] = [];
    for (const kind of ["image", "layer"] as const) all.push({ kind, records: await this.list(kind) });
    await writeFileAtomic(this.#path, JSON.stringify(all));
  }

  async load(): Promise<void> {
    let text = "[]";
    try {
      text = readFileSync(this.#path, "utf8");
    } catch {
      // The first start.
    }
    const all = JSON.parse(text) as readonly { readonly kind: "image" | "layer"; readonly records: readonly StoredRecord[] }[];
    for (const { kind, records } of all) await super.write(records.map(({ id, value }) => ({ op: "put", kind, id, value })));
  }
}

export async function openCrashRoom(dir: string): Promise<ImageRoom> {
  const store = new FileStore(join(dir, "records.json"));
  await store.load();
  const platform = { os: "linux", architecture: "amd64", variant: "" };
  const options = { ...imageDefaults, root: join(dir, "root"), stateDir: join(dir, "state"), platform };
  const images = await openImages(options, { store, log: silentLog, layerMounter: new FakeLayerMounter() });
  await images.recoverMounts(new Map());
  return images;
}

async function main(reference: string, dir: string, failpoints: string): Promise<void> {
  armFailpoints(failpoints);
  const { signal } = new AbortController();
  await using images = await openCrashRoom(dir);
  await images.remove(await images.pull({ reference, credentials: undefined, requestId: "crash" }, { signal }));
}

if (import.meta.main) await main(process.argv[2] ?? "", process.argv[3] ?? "", process.argv[4] ?? "");
