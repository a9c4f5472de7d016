/**
 * initrd.ts INIT OUTPUT [MODULE...]: an initrd, a `newc` cpio with one program as /init, two directories to mount on, and kernel modules that
 * it shall load. The same files give the same bytes: no time, owner or inode number of this machine is in it.
 */
import { readFile, rename, writeFile } from "node:fs/promises";
import { basename } from "node:path";

/** What the archive holds; paths without a leading `/`. */
export type Entry =
  | { readonly kind: "directory"; readonly path: string }
  | { readonly kind: "file" | "program"; readonly path: string; readonly content: Uint8Array };

const modes = { directory: 0o040755, file: 0o100644, program: 0o100755 } as const;

/** A module, by its name without directories. */
export interface Module {
  readonly name: string;
  readonly content: Uint8Array;
}

/** The initial root as pid 1 finds it. Parents stand before what is in them: the kernel makes no directory by itself. */
export function initialRoot(init: Uint8Array, modules: readonly Module[]): Entry[] {
  const directories = ["dev", "root", ...(modules.length > 0 ? ["modules"] : [])];
  return [
    ...directories.map((path): Entry => ({ kind: "directory", path })),
    ...modules.map(({ name, content }): Entry => ({ kind: "file", path: `modules/${name}`, content })),
    { kind: "program", path: "init", content: init },
  ];
}

/** A cpio archive in the format that the kernel unpacks, padded to 512 bytes. */
export function cpio(entries: readonly Entry[]): Uint8Array {
  const parts = entries.flatMap((entry, index) => record(entry.path, modes[entry.kind], index + 1, contentOf(entry)));
  parts.push(...record("TRAILER!!!", 0, 0, new Uint8Array()));
  const sizeBytes = parts.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([...parts, new Uint8Array(-sizeBytes & 511)]);
}

function contentOf(entry: Entry): Uint8Array {
  return entry.kind === "directory" ? new Uint8Array() : entry.content;
}

/** Header, name and content, each padded to four bytes. */
function record(path: string, mode: number, inode: number, content: Uint8Array): Uint8Array[] {
  const name = new TextEncoder().encode(`${path}\0`);
  const fields = [inode, mode, 0, 0, mode === modes.directory ? 2 : 1, 0, content.length, 0, 0, 0, 0, name.length, 0];
  const header = new TextEncoder().encode(`070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`);
  return [header, name, new Uint8Array(-(header.length + name.length) & 3), content, new Uint8Array(-content.length & 3)];
}

if (import.meta.main) {
  const [init, output, ...files] = process.argv.slice(2);
  if (init === undefined || output === undefined) {
    console.error("usage: initrd.ts INIT OUTPUT [MODULE...]");
    process.exit(2);
  }
  const modules = await Promise.all(files.map(async (file): Promise<Module> => ({ name: basename(file), content: await readFile(file) })));
  await writeFile(`${output}.new`, cpio(initialRoot(await readFile(init), modules)));
  await rename(`${output}.new`, output);
}
