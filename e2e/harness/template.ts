import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";

import type { Node } from "./node.ts";
import type { PodOptions } from "./pod.ts";
import type { Prefix } from "./prefix.ts";
import { waitFor } from "./wait.ts";

/** A file that tests put there: the template of another QEMU, or of another guest. */
const foreignState = "made for another QEMU";
export const foreignTemplate = {
  state: foreignState,
  name: `${"0".repeat(16)}-${"0".repeat(16)}.${createHash("sha256").update(foreignState).digest("hex")}.state`,
};

export function templatesDir(prefix: Prefix): string {
  return join(prefix.rootDir, "vm-templates");
}

/** Path of the saved machine that microVMs of the usual size go on from. */
export async function findTemplate(prefix: Prefix): Promise<string | undefined> {
  const names = await readdir(templatesDir(prefix)).catch(() => []);
  const name = names.find((candidate) => candidate.endsWith(".state") && candidate !== foreignTemplate.name);
  return name === undefined ? undefined : join(templatesDir(prefix), name);
}

/** The same; while there is none, a pod is its occasion. */
export async function makeTemplate(node: Node, options: PodOptions = {}): Promise<string> {
  const path = await findTemplate(node.prefix);
  if (path !== undefined) return path;
  await using _ = await node.runPod(options);
  return await waitFor("the template", () => findTemplate(node.prefix), { timeoutMs: 40_000 });
}
