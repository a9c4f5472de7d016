import { globSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import type { Entry } from "../../guest/initrd.ts";
import { cpio } from "../../guest/initrd.ts";
import { mustRun } from "../harness/command.ts";

/** What finds the root file system, and `loop`, whose device nothing else makes here: it would load the module when it is opened. */
const bootModules = ["virtio_pci", "virtio_blk", "virtiofs", "overlay", "virtio_console", "loop"];

export interface InitrdParts {
  /** What /lib/modules is: one directory. */
  readonly modulesDir: string;
  readonly initPath: string;
  /** Files that the machine has over the host's, by their path below `/`. */
  readonly overlay: Readonly<Record<string, string>>;
}

/** The archive with BusyBox, the modules that find the root file system, and the script that mounts it. */
export async function makeInitrd({ modulesDir, initPath, overlay }: InitrdParts): Promise<Uint8Array> {
  const modules = await inOrder(modulesDir);
  const order = modules.map((path) => basename(path, ".ko")).join("\n");
  const files: Record<string, Uint8Array> = {
    "bin/busybox": await readFile("/bin/busybox"),
    init: await readFile(initPath),
    "modules/order": Buffer.from(`${order}\n`),
  };
  for (const path of modules) files[`modules/${basename(path)}`] = await readFile(path);
  for (const [path, content] of Object.entries(overlay)) files[`overlay/${path}`] = Buffer.from(content);
  return cpio([
    ...directoriesOf(Object.keys(files)),
    ...Object.entries(files).map(([path, content]): Entry => ({ kind: "program", path, content })),
  ]);
}

async function inOrder(modulesDir: string): Promise<readonly string[]> {
  const paths = new Map(globSync(join(modulesDir, "*/kernel/**/*.ko")).map((path) => [basename(path, ".ko"), path]));
  const found: string[] = [];
  const add = async (name: string) => {
    const path = paths.get(name);
    if (path === undefined) throw new Error(`${modulesDir} has no module ${name}`);
    if (found.includes(path)) return;
    const needs = (await mustRun("modinfo", ["-F", "depends", path])).trim();
    for (const need of needs.split(",").filter((word) => word !== "")) await add(need);
    found.push(path);
  };
  for (const name of bootModules) await add(name);
  return found;
}

/** Every directory of the files, parents first: the kernel makes none by itself. */
function directoriesOf(paths: readonly string[]): Entry[] {
  const found = new Set<string>();
  for (const path of paths) {
    for (let dir = dirname(path); dir !== "."; dir = dirname(dir)) found.add(dir);
  }
  return [...found].sort().map((path) => ({ kind: "directory", path }));
}
