import { readdir, readFile } from "node:fs/promises";
import { join, relative } from "node:path";

import { mustRun } from "../../harness/command.ts";
import { repositoryDir } from "../../harness/settings.ts";
import type { TarEntry } from "../../harness/tar.ts";

/** What `parts.sh` makes, as members of layers. */
export interface Parts {
  /** Every applet is a hard link: the suite masks `/bin/ls`, and behind a symbolic link that would be all of BusyBox. */
  readonly busybox: readonly TarEntry[];
  readonly nginx: readonly TarEntry[];
  /** `/nnp`, setuid root. */
  readonly nonewprivs: readonly TarEntry[];
}

export async function readParts(): Promise<Parts> {
  await mustRun(join(import.meta.dirname, "parts.sh"), []);
  const dir = join(repositoryDir, "build", "critest", "parts");
  return {
    busybox: await busyboxEntries(join(dir, "busybox")),
    nginx: await tree(join(dir, "nginx")),
    nonewprivs: [{ type: "file", path: "nnp", content: await readFile(join(dir, "nnp")), mode: 0o4755 }],
  };
}

async function busyboxEntries(path: string): Promise<TarEntry[]> {
  const applets = (await mustRun(path, ["--list"])).split("\n").filter((name) => name !== "" && name !== "busybox");
  return [
    { type: "file", path: "bin/busybox", content: await readFile(path) },
    ...applets.map((name): TarEntry => ({ type: "hardlink", path: `bin/${name}`, target: "bin/busybox" })),
  ];
}

/** All files below `dir`, in an order that does not depend on the file system. */
async function tree(dir: string): Promise<TarEntry[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return await Promise.all(
    files.sort().map(async (path): Promise<TarEntry> => ({ type: "file", path: relative(dir, path), content: await readFile(path) })),
  );
}
