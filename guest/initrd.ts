/**
 * initrd.ts INIT OUTPUT: the guest's initrd, a `newc` cpio with one program as /init, the name /sbin/modprobe for it, and the directories
 * that pid 1 mounts on. The same program gives the same bytes: no time, owner or inode number of this machine is in it.
 */
import { readFile, rename, writeFile } from "node:fs/promises";

/** What the archive holds; paths without a leading `/`. */
export type Entry =
  | { readonly kind: "directory"; readonly path: string }
  | { readonly kind: "program"; readonly path: string; readonly content: Uint8Array }
  | { readonly kind: "link"; readonly path: string; readonly target: string };

const modes = { directory: 0o040755, program: 0o100755, link: 0o120777 } as const;

/** Parents stand before what is in them: the kernel makes no directory by itself. */
const mountPoints = ["dev", "proc", "sys", "run", "tmp", "var", "scratch", "sbin"];

/** The guest's root as pid 1 finds it. */
export function guestRoot(init: Uint8Array): Entry[] {
  return [
    ...mountPoints.map((path): Entry => ({ kind: "directory", path })),
    { kind: "program", path: "init", content: init },
    // Started by the kernel (CONFIG_MODPROBE_PATH): pid 1's own binary, wherever that is by then; it looks at the name it was started by.
    { kind: "link", path: "sbin/modprobe", target: "/proc/1/exe" },
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
  if (entry.kind === "program") return entry.content;
  return new TextEncoder().encode(entry.kind === "link" ? entry.target : "");
}

/** Header, name and content, each padded to four bytes. */
function record(path: string, mode: number, inode: number, content: Uint8Array): Uint8Array[] {
  const name = new TextEncoder().encode(`${path}\0`);
  const fields = [inode, mode, 0, 0, mode === modes.directory ? 2 : 1, 0, content.length, 0, 0, 0, 0, name.length, 0];
  const header = new TextEncoder().encode(`070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`);
  return [header, name, new Uint8Array(-(header.length + name.length) & 3), content, new Uint8Array(-content.length & 3)];
}

if (import.meta.main) {
  const [init, output, ...rest] = process.argv.slice(2);
  if (init === undefined || output === undefined || rest.length > 0) {
    console.error("usage: initrd.ts INIT OUTPUT");
    process.exit(2);
  }
  await writeFile(`${output}.new`, cpio(guestRoot(await readFile(init))));
  await rename(`${output}.new`, output);
}
