import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { promisify } from "node:util";

import { silentLog } from "../lib/log.ts";
import { openCrashRoom } from "./crash-pull.ts";
import { MemoryStore } from "./fake.ts";
import { openImages } from "./images.ts";
import type { LayerMounter } from "./layers/layer-mounter.ts";
import { imageDefaults } from "./options.ts";
import { RegistryFixture } from "./registry/registry-fixture.ts";

const run = promisify(execFile);
const signal = new AbortController().signal;

describe("Images, for real", () => {
  let dir = "";
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "aurae-cri-images-"));
  });
  afterEach(() => rm(dir, { recursive: true }));

  const blobs = () => readdir(join(dir, "root", "layers", "sha256"));

  for (const name of [
    "image.layer.rename.before",
    "image.layer.record.before",
    "image.layer.record.after",
    "image.record.before",
    "image.record.after",
    "image.remove.before",
    "image.remove.after",
    "image.layer.delete.before",
    "image.layer.delete.after",
  ]) {
    it(`have each image whole or not at all after being killed at ${name}`, async () => {
      await using registry = new RegistryFixture();
      await registry.listen();
      const file = (text: string) => ({ name: text, data: Buffer.from(text) });
      const { id } = registry.push("killed", "v", { layers: [[file("x")], [file("y")]] });
      const child = spawn(
        process.execPath,
        [join(import.meta.dirname, "crash-pull.ts"), `${registry.host}/killed:v`, dir, `${name}=kill`],
        { stdio: "ignore" },
      );
      assert.deepEqual(await once(child, "exit"), [null, "SIGKILL"]);
      await using survivor = await openCrashRoom(dir);
      assert.equal((await blobs()).length, survivor.list().length * 2);
      const request = { reference: `${registry.host}/killed:v`, credentials: undefined, requestId: "" };
      assert.equal(await survivor.pull(request, { signal }), id);
      assert.equal((await blobs()).length, 2);
    });
  }

  it("pull what umoci and skopeo put into docker-registry", {
    skip: process.getuid?.() === 0 ? false : "mounting needs root",
  }, async () => {
    const host = `127.0.0.1:${await freePort()}`;
    await writeFile(
      join(dir, "registry.yml"),
      `version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: ${join(dir, "registry")}}}\nhttp: {addr: "${host}"}\n`,
    );
    const server = spawn("docker-registry", ["serve", join(dir, "registry.yml")], { stdio: "ignore" });
    try {
      await waitFor(`http://${host}/v2/`);
      const layout = join(dir, "oci");
      await mkdir(join(dir, "tree", "etc"), { recursive: true });
      await writeFile(join(dir, "tree", "etc", "hello"), "from umoci\n", { mode: 0o640 });
      await run("umoci", ["init", "--layout", layout]);
      await run("umoci", ["new", "--image", `${layout}:v1`]);
      await run("umoci", ["insert", "--image", `${layout}:v1`, join(dir, "tree"), "/"]);
      await run("umoci", ["insert", "--image", `${layout}:v1`, join(dir, "tree", "etc", "hello"), "/second"]);
      await run("umoci", ["config", "--image", `${layout}:v1`, "--config.user", "www-data:1004", "--config.cmd", "sh"]);
      for (const format of ["oci", "v2s2"])
        await run("skopeo", [
          "copy",
          "--format",
          format,
          "--dest-tls-verify=false",
          `oci:${layout}:v1`,
          `docker://${host}/team/app:${format}`,
        ]);
      const options = {
        ...imageDefaults,
        root: join(dir, "root"),
        stateDir: join(dir, "state"),
        platform: { os: "linux", architecture: "amd64", variant: "" },
      };
      await using images = await openImages(options, { store: new MemoryStore(), log: silentLog, layerMounter: realMounter() });
      const pull = (reference: string) => images.pull({ reference, credentials: undefined, requestId: "test" }, { signal });
      await images.recoverMounts(new Map());
      const id = await pull(`${host}/team/app:oci`);
      assert.equal(images.find(id)?.config.user, "www-data:1004");
      const dirs = await images.mountLayers(id, "c1", { signal });
      assert.equal(await readFile(join(dirs[1] ?? "", "etc", "hello"), "utf8"), "from umoci\n");
      assert.equal((await stat(join(dirs[0] ?? "", "second"))).mode & 0o777, 0o640);
      await images.releaseLayers("c1");
      await pull(`${host}/team/app:v2s2`);
      assert.equal((await blobs()).length, 2, "both formats have the same layers");
    } finally {
      server.kill("SIGKILL");
      await once(server, "exit");
    }
  });

  function realMounter(): LayerMounter {
    return {
      mount: async (blob, target) => void (await run("mount", ["-t", "erofs", "-o", "ro,loop", blob, target])),
      unmount: async (target) => void (await run("umount", [target])),
      mounted: async (parent) =>
        (await readFile("/proc/self/mountinfo", "utf8"))
          .split("\n")
          .map((line) => line.split(" ")[4] ?? "")
          .filter((path) => path.startsWith(`${parent}/`)),
    };
  }
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function waitFor(url: string): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const answer = await fetch(url).catch(() => undefined);
    await answer?.body?.cancel();
    if (answer?.ok) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${url} does not answer`);
}
