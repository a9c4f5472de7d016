import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { promisify } from "node:util";

import { HostError } from "./errors.ts";
import { LayerMounts } from "./layer-mounts.ts";

const run = promisify(execFile);
const signal = new AbortController().signal;

/** Stands in for auraed: the same command line, a tmpfs instead of the blob. */
const script = `#!/bin/sh
case "$1 $2 $3 $5" in
"host mount-layer --blob --target") [ -e "$4" ] || { echo "$4: no such blob" >&2; exit 1; }; exec /usr/bin/mount -t tmpfs layer "$6" ;;
"host unmount --target ") exec /usr/bin/umount "$4" ;;
*) echo "usage: $*" >&2; exit 2 ;;
esac
`;

describe("LayerMounts", { skip: process.getuid?.() === 0 ? false : "mounting needs root" }, () => {
  let dir = "";
  let mounts: LayerMounts;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "aurae-cri-mounts-"));
    await writeFile(join(dir, "auraed"), script);
    await chmod(join(dir, "auraed"), 0o755);
    await mkdir(join(dir, "layers", "a b"), { recursive: true });
    mounts = new LayerMounts({ auraedPath: join(dir, "auraed") });
  });
  afterEach(async () => {
    await run("umount", [join(dir, "layers", "a b")]).catch(() => {});
    await rm(dir, { recursive: true });
  });

  it("mounts, lists and unmounts", async () => {
    const target = join(dir, "layers", "a b");
    assert.deepEqual(await mounts.mounted(join(dir, "layers")), []);
    await mounts.mount(join(dir, "auraed"), target, { signal });
    assert.deepEqual(await mounts.mounted(join(dir, "layers")), [target]);
    assert.deepEqual(await mounts.mounted(dir), []);
    await mounts.unmount(target, { signal });
    await mounts.unmount(target, { signal });
    assert.deepEqual(await mounts.mounted(join(dir, "layers")), []);
  });

  it("carries what auraed has to say", async () => {
    await assert.rejects(mounts.mount("/no/blob", join(dir, "layers"), { signal }), (error) => {
      assert.ok(error instanceof HostError);
      assert.deepEqual(error.fact, { code: "ERR_AURAED_HOST", operation: "mount-layer" });
      assert.match(error.message, /no such blob/);
      return true;
    });
  });
});
