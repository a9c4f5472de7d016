import { mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { syncDirectory, writeFileAtomic } from "../lib/atomic-write.ts";
import { messageOf } from "../lib/coded-error.ts";
import { pluginSchema } from "./cni-config.ts";
import { NetnsError } from "./errors.ts";

/**
 * All that DEL needs, kept from before ADD until DEL has succeeded, so that neither a crash nor a changed configuration loses a lease.
 * `adding` says that ADD may have run, wholly, in part or not at all.
 */
export type AttachmentRecord = z.infer<typeof recordSchema>;

const common = {
  schemaVersion: z.literal(1),
  instanceId: z.string(),
  podId: z.string(),
  netnsPath: z.string(),
  args: z.string(),
  capabilities: z.record(z.string(), z.unknown()),
  network: z.object({ name: z.string(), cniVersion: z.string(), plugins: z.array(pluginSchema) }),
  confFile: z.string(),
};
const recordSchema = z.discriminatedUnion("phase", [
  z.object({ ...common, phase: z.literal("adding") }),
  z.object({ ...common, phase: z.literal("attached"), ips: z.array(z.string()).min(1), result: z.looseObject({}) }),
]);

const SUFFIX = ".json";

/** One file per attached pod. */
export class AttachmentRecords {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** Makes the directory, and removes the temporary files that a crash left in it. */
  static async open(directory: string): Promise<AttachmentRecords> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    for (const name of await readdir(directory)) {
      if (name.startsWith(".") && name.endsWith(".tmp")) await rm(join(directory, name), { force: true });
    }
    return new AttachmentRecords(directory);
  }

  /** Durable when it resolves. */
  async put(record: AttachmentRecord): Promise<void> {
    await writeFileAtomic(this.file(record.podId), JSON.stringify(record));
  }

  /** Undefined when the pod has none. Throws ERR_NETWORK_RECORD for one that cannot be understood. */
  async get(podId: string): Promise<AttachmentRecord | undefined> {
    const file = this.file(podId);
    let text: string;
    try {
      text = await readFile(file, "utf8");
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
      throw recordError(file, messageOf(error), error);
    }
    try {
      return recordSchema.parse(JSON.parse(text));
    } catch (error) {
      throw recordError(file, "is damaged or of another release; the pod's address is still reserved", error);
    }
  }

  /** Durable when it resolves. None is success. */
  async remove(podId: string): Promise<void> {
    await rm(this.file(podId), { force: true });
    await syncDirectory(this.#directory);
  }

  /** Renames an unreadable record so that it no longer counts; returns its new name. */
  async putAside(podId: string): Promise<string> {
    const aside = `${this.file(podId)}.damaged`;
    await rename(this.file(podId), aside);
    await syncDirectory(this.#directory);
    return aside;
  }

  async podIds(): Promise<readonly string[]> {
    const names = await readdir(this.#directory);
    return names.filter((name) => !name.startsWith(".") && name.endsWith(SUFFIX)).map((name) => name.slice(0, -SUFFIX.length));
  }

  file(podId: string): string {
    return join(this.#directory, `${podId}${SUFFIX}`);
  }
}

function recordError(file: string, problem: string, cause: unknown): NetnsError {
  return new NetnsError({ code: "ERR_NETWORK_RECORD", file }, `network record ${file} ${problem}`, { cause });
}
