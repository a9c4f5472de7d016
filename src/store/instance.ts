import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../lib/atomic-write.ts";
import { StoreError } from "./errors.ts";

/**
 * The 8 hex characters that mark everything this daemon makes on the host (namespaces, cgroups, mounts), read or made once per root.
 * Kept outside the database, so that a lost one does not make the daemon a stranger to its own pods. The root is locked by now.
 */
export async function openInstanceId(rootDir: string): Promise<string> {
  const path = join(rootDir, "instance-id");
  const kept = await readKept(path);
  if (kept === undefined) {
    const instanceId = randomBytes(4).toString("hex");
    await writeFileAtomic(path, `${instanceId}\n`, { mode: 0o644 });
    return instanceId;
  }
  const instanceId = kept.trim();
  if (/^[0-9a-f]{8}$/.test(instanceId)) return instanceId;
  // A new one would orphan every pod on the node.
  throw new StoreError(
    { code: "ERR_INSTANCE_ID", path },
    `${path} does not hold 8 hex characters: restore it (names of our network namespaces and cgroups end in them), or delete it when no pod is left`,
  );
}

async function readKept(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}
