import assert from "node:assert/strict";
import { mkdtempDisposable, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { readMountSources } from "./mount-source.ts";

test("what is at a path, links followed", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "mount-source-"));
  const file = join(dir.path, "file");
  const link = join(dir.path, "link");
  const socket = join(dir.path, "socket");
  await writeFile(file, "");
  await symlink(file, link);
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  try {
    const facts = await readMountSources([dir.path, link, socket, "/dev/null", "/proc/self/status", join(dir.path, "none"), undefined]);
    assert.deepEqual(
      facts.map((fact) => fact?.kind),
      ["directory", "file", "socket", "char-device", "file", undefined, undefined],
    );
    assert.equal(facts[1]?.path, facts[0] === undefined ? "" : join(facts[0].path, "file"));
    assert.equal(facts[4]?.fsType, "proc");
  } finally {
    server.close();
  }
});
