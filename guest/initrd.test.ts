import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { cpio, initialRoot } from "./initrd.ts";

const run = promisify(execFile);

/** What cpio itself says of an archive: mode, links, name. */
async function listing(archive: Uint8Array): Promise<string[]> {
  const listed = run("cpio", ["--list", "--verbose", "--numeric-uid-gid", "--quiet"], { env: { ...process.env, LC_ALL: "C", TZ: "UTC" } });
  listed.child.stdin?.end(archive);
  return (await listed).stdout.trimEnd().split("\n");
}

test("cpio reads the archive: root's, from the epoch, with parents before children", async () => {
  const lines = await listing(cpio(initialRoot(new Uint8Array(10), [{ name: "01-a.ko", content: new Uint8Array(7) }])));
  assert.ok(lines.every((line) => / 0 +0 +\d+ Jan {2}1 {2}1970 /.test(line)));
  assert.match(lines.find((line) => line.endsWith(" init")) ?? "", /^-rwxr-xr-x .* 10 /);
  assert.match(lines.find((line) => line.endsWith(" modules/01-a.ko")) ?? "", /^-rw-r--r-- .* 7 /);
  const names = lines.map((line) => line.split(" ").at(-1) ?? "");
  assert.ok(names.indexOf("modules") >= 0 && names.indexOf("modules") < names.indexOf("modules/01-a.ko"));
});

test("without modules there is no directory for them: that is what the init looks for", async () => {
  const lines = await listing(cpio(initialRoot(new Uint8Array(10), [])));
  assert.ok(!lines.some((line) => line.includes("modules")));
});

for (const sizeBytes of [0, 1, 2, 3, 4, 4097]) {
  test(`a program of ${sizeBytes} bytes comes out as it went in`, async () => {
    const program = new Uint8Array(sizeBytes).map((_, index) => index * 7);
    const directory = await mkdtemp(join(tmpdir(), "initrd-"));
    try {
      const archive = cpio([{ kind: "program", path: "init", content: program }]);
      assert.equal(archive.length % 512, 0);
      await writeFile(join(directory, "archive"), archive);
      await run("cpio", ["--extract", "--quiet", "--file", "archive"], { cwd: directory });
      assert.deepEqual(new Uint8Array(await readFile(join(directory, "init"))), program);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
}

test("the same program gives the same bytes", () => {
  const program = new TextEncoder().encode("a program");
  assert.deepEqual(cpio(initialRoot(program, [])), cpio(initialRoot(program, [])));
});
