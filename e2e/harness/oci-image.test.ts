import assert from "node:assert/strict";
import { mkdtempDisposable, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";

import { mustRun } from "./command.ts";
import { buildImage, digestOf } from "./oci-image.ts";
import type { TarEntry } from "./tar.ts";
import { tar } from "./tar.ts";

const entries: readonly TarEntry[] = [
  { type: "directory", path: "dir/", mode: 0o1777 },
  { type: "file", path: "dir/file", content: "x".repeat(513), mode: 0o4711, uid: 1000, gid: 50000 },
  { type: "hardlink", path: "dir/hard", target: "dir/file" },
  { type: "symlink", path: "dir/soft", target: "file" },
];

test("GNU tar reads what is written, with modes, owners and links", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "ae2e-tar-"));
  const path = join(dir.path, "layer.tar");
  await writeFile(path, tar(entries));
  const listed = await mustRun("tar", ["--numeric-owner", "-tvf", path]);
  assert.deepEqual(
    listed
      .trimEnd()
      .split("\n")
      .map((line) => line.replace(/ 1970-01-01 \d\d:\d\d /, " ").replaceAll(/ +/g, " ")),
    [
      "drwxrwxrwt 0/0 0 dir/",
      "-rws--x--x 1000/50000 513 dir/file",
      "hrwxr-xr-x 0/0 0 dir/hard link to dir/file",
      "lrwxr-xr-x 0/0 0 dir/soft -> file",
    ],
  );
});

test("the same recipe gives the same image, whose diff-id is the digest of the plain layer", () => {
  const build = () => buildImage({ layers: [{ entries, compression: "gzip" }], settings: { Cmd: ["sh"] } });
  const [image, again] = [build(), build()];
  assert.equal(image.manifest.digest, again.manifest.digest);
  const layer = image.blobs[1]?.bytes ?? Buffer.alloc(0);
  assert.deepEqual(image.diffIds, [digestOf(gunzipSync(layer))]);
});
