import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { readMountinfo } from "./mountinfo.ts";
import { removeOwnCgroups } from "./own-cgroups.ts";

test("our cgroup goes from every hierarchy of this host; one that holds a pod stays", async () => {
  const mounts = (await readMountinfo()).filter(
    ({ mountPoint, fsType }) => mountPoint.startsWith("/sys/fs/cgroup") && /^cgroup2?$/.test(fsType),
  );
  const instanceId = `test-${randomBytes(4).toString("hex")}`;
  const own = mounts.map(({ mountPoint }) => join(mountPoint, `aurae-${instanceId}`));
  const pod = join(own[0] ?? "", "pod");
  try {
    for (const directory of new Set(own)) await mkdir(directory, { recursive: true });
    await mkdir(pod);
    await removeOwnCgroups(instanceId, "cgroupfs");
    assert.deepEqual(own.filter(existsSync), own.slice(0, 1));
    await rmdir(pod);
    await removeOwnCgroups(instanceId, "cgroupfs");
    assert.deepEqual(own.filter(existsSync), []);
  } finally {
    for (const directory of [pod, ...own]) await rmdir(directory).catch(() => {});
  }
});
