import { readFile, realpath } from "node:fs/promises";
import { basename } from "node:path";

import { mustRun } from "./command.ts";
import type { Blob, BuiltImage, LayerRecipe } from "./oci-image.ts";
import { buildImage, buildIndex } from "./oci-image.ts";
import type { TarEntry } from "./tar.ts";

/** Something the registry holds under `name:tag`. */
export interface PublishedImage {
  readonly name: string;
  readonly tag: string;
  readonly mediaType: string;
  readonly manifest: Blob;
  readonly images: readonly BuiltImage[];
}

/**
 * The images that the scenarios run, all made of parts of this machine: a static BusyBox, and two small programs with the libraries they need.
 *
 * - `busybox:1`: applets, `ipcmk`, `unshare`, `/usr/bin/suid-cat` (setuid root), users `nobody` and `app`.
 * - `custom:1`: on top of it user, environment, entrypoint, command, working directory, stop signal, volume.
 * - `layers:1`: gzip, zstd and plain layers with whiteouts.
 * - `multi:1`: an index whose other architecture cannot run here.
 * - `other:1`: `busybox` under another id.
 * - `pause:1`: what containerd runs as a pod's first process.
 */
export async function standardImages(): Promise<readonly PublishedImage[]> {
  const base = await baseLayer();
  const busybox = buildImage({ layers: [base], settings: { Cmd: ["sh"], Env: [defaultPath] } });
  const foreign = buildImage({ layers: [layer([file("foreign", "foreign")])], settings: { Cmd: ["/foreign"] }, architecture: "s390x" });
  const native = buildImage({ layers: [base, layer([file("native", "native")])], settings: { Cmd: ["sh"] } });
  const index = buildIndex([
    { image: foreign, architecture: "s390x" },
    { image: native, architecture: process.arch === "x64" ? "amd64" : process.arch },
  ]);
  return [
    single("busybox", busybox),
    single("custom", buildImage({ layers: [base, layer(customEntries)], settings: customSettings })),
    single("layers", buildImage({ layers: [base, ...whiteoutLayers], settings: { Cmd: ["sh"] } })),
    { name: "multi", tag: "1", ...index, images: [foreign, native] },
    single("other", buildImage({ layers: [base, layer([file("marker", "other")])], settings: { Cmd: ["sh"] } })),
    single("pause", buildImage({ layers: [base, layer([file("marker", "pause")])], settings: { Entrypoint: pauseCommand } })),
  ];
}

export const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Not `sleep`: in a pod's namespace the first process would be found by who looks for a `sleep` of his own. */
const pauseCommand = ["/bin/tail", "-f", "-s", "86400", "/dev/null"];

const customSettings = {
  User: "app",
  Env: [defaultPath, "FROM_IMAGE=image", "SHARED=image"],
  Entrypoint: ["/bin/entry", "from-entrypoint"],
  Cmd: ["from-cmd"],
  WorkingDir: "/srv/app",
  StopSignal: "SIGUSR1",
  Volumes: { "/volume": {} },
  Labels: { "org.example.purpose": "test" },
} as const;

const customEntries: readonly TarEntry[] = [
  file(
    "bin/entry",
    '#!/bin/sh\ntrap "echo got USR1; exit 7" USR1\necho "args: $*"\necho "id: $(id -u):$(id -g) $(id -G)"\necho "cwd: $PWD"\nenv | sort\nwhile :; do sleep 0.05; done\n',
    0o755,
  ),
  { type: "directory", path: "srv/", mode: 0o755 },
  { type: "directory", path: "volume/", mode: 0o755, uid: 1000, gid: 1000 },
  { ...file("volume/seed", "seeded", 0o644), uid: 1000, gid: 1000 },
];

/** What is left of `data/` in the end: `kept`, `dir/new`, `link` and `hard` (to `kept`), nothing else. */
const whiteoutLayers: readonly LayerRecipe[] = [
  {
    compression: "gzip",
    entries: [
      { type: "directory", path: "data/" },
      file("data/kept", "kept\n"),
      file("data/removed", "removed"),
      { type: "directory", path: "data/dir/" },
      file("data/dir/old", "old"),
      { type: "directory", path: "data/gone/" },
      file("data/gone/inner", "inner"),
      { type: "hardlink", path: "data/hard", target: "data/kept" },
      { type: "symlink", path: "data/link", target: "kept" },
    ],
  },
  {
    compression: "zstd",
    entries: [
      file("data/.wh.removed", ""),
      file("data/.wh.gone", ""),
      { type: "directory", path: "data/dir/" },
      file("data/dir/.wh..wh..opq", ""),
    ],
  },
  {
    compression: "none",
    entries: [file("data/dir/new", "new\n", 0o640), { type: "file", path: "data/owned", content: "", mode: 0o4711, uid: 1000, gid: 50000 }],
  },
];

async function baseLayer(): Promise<LayerRecipe> {
  const busybox = await readFile("/bin/busybox");
  const applets = (await mustRun("/bin/busybox", ["--list"])).split("\n").filter((name) => name !== "" && name !== "busybox");
  const programs = await dynamicPrograms(["/usr/bin/ipcmk", "/usr/bin/unshare", "/usr/bin/cat"]);
  return layer([
    ...["bin/", "dev/", "etc/", "lib64/", "proc/", "root/", "sys/", "usr/", "usr/bin/", "usr/lib/", "var/", "var/www/"].map(directory),
    { type: "directory", path: "tmp/", mode: 0o1777 },
    file(
      "etc/passwd",
      "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
      0o644,
    ),
    file("etc/group", "root:x:0:\napp:x:1000:\nfrom-image:x:50000:app\nnobody:x:65534:\n", 0o644),
    file("var/www/index.html", "hello from the pod\n", 0o644),
    file("bin/busybox", busybox),
    ...applets.map((name): TarEntry => ({ type: "hardlink", path: `bin/${name}`, target: "bin/busybox" })),
    ...programs,
  ]);
}

/** Programs of this machine under their own names, `cat` as `suid-cat`, and every library that they name. */
async function dynamicPrograms(paths: readonly string[]): Promise<TarEntry[]> {
  const libraries = new Set<string>();
  const entries: TarEntry[] = [];
  for (const path of paths) {
    for (const found of (await mustRun("ldd", [path])).matchAll(/(\/\S+) \(0x/g)) libraries.add(found[1] ?? "");
    const name = basename(path);
    entries.push(name === "cat" ? file("usr/bin/suid-cat", await readFile(path), 0o4755) : file(`usr/bin/${name}`, await readFile(path)));
  }
  for (const library of libraries) {
    // The loader looks in /usr/lib by default, so the files need not lie in the directory of this distribution's architecture.
    const target = library.startsWith("/lib64/") ? library.slice(1) : `usr/lib/${basename(library)}`;
    entries.push(file(target, await readFile(await realpath(library))));
  }
  return entries;
}

function single(name: string, image: BuiltImage): PublishedImage {
  return { name, tag: "1", mediaType: image.mediaType, manifest: image.manifest, images: [image] };
}

function layer(entries: readonly TarEntry[]): LayerRecipe {
  return { entries, compression: "gzip" };
}

function directory(path: string): TarEntry {
  return { type: "directory", path };
}

function file(path: string, content: Buffer | string, mode = 0o755): TarEntry {
  return { type: "file", path, content, mode };
}
