import assert from "node:assert/strict";
import { chmod, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { status } from "@grpc/grpc-js";

import { MountPropagation, NamespaceMode } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { mustRun, runCommand } from "../harness/command.ts";
import { notInGuest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const node = useNode({ images: ["busybox", "custom"] });
const noPropagation = notInGuest("mounts do not pass between the host and a guest; the container is refused, late-refusal.e2e.ts");
let count = 0;

/** A fresh directory of the host that holds one file, `seed`. */
async function hostDir(): Promise<string> {
  const dir = join(node().prefix.dir, `volume-${++count}`);
  await mkdir(dir);
  await chmod(dir, 0o777);
  await writeFile(join(dir, "seed"), "from the host\n");
  return dir;
}

/** A shared mount of the host, unmounted with everything below it when disposed. */
async function sharedMount(): Promise<AsyncDisposable & { readonly dir: string }> {
  const dir = await hostDir();
  await mustRun("mount", ["-t", "tmpfs", "none", dir]);
  await mustRun("mount", ["--make-shared", dir]);
  return {
    dir,
    async [Symbol.asyncDispose]() {
      await runCommand("umount", ["-R", dir]);
    },
  };
}

test("read-write and read-only bind mounts, and their echo in the status", async () => {
  await using pod = await node().runPod();
  const [writable, fixed] = [await hostDir(), await hostDir()];
  const container = await pod.start({
    mounts: [
      { hostPath: writable, containerPath: "/deep/new/writable" },
      { hostPath: fixed, containerPath: "/fixed", readonly: true },
      { hostPath: join(fixed, "seed"), containerPath: "/etc/seed", readonly: true },
    ],
  });
  assert.equal(await container.shell("cat /deep/new/writable/seed /fixed/seed /etc/seed"), "from the host\n".repeat(3).trimEnd());
  await container.shell("echo inside > /deep/new/writable/made");
  assert.equal(await readFile(join(writable, "made"), "utf8"), "inside\n");
  for (const path of ["/fixed/made", "/etc/seed"])
    assert.match((await container.exec(["/bin/touch", path])).stderr, /Read-only file system/);
  const mounts = new Map((await container.status()).mounts.map((mount) => [mount.containerPath, [mount.hostPath, mount.readonly]]));
  assert.deepEqual(
    mounts,
    new Map([
      ["/deep/new/writable", [writable, false]],
      ["/fixed", [fixed, true]],
      ["/etc/seed", [join(fixed, "seed"), true]],
    ]),
  );
});

test("a symbolic link as the source is followed", async () => {
  await using pod = await node().runPod();
  const dir = await hostDir();
  const link = join(node().prefix.dir, `link-${count}`);
  await symlink(dir, link);
  const container = await pod.start({ mounts: [{ hostPath: link, containerPath: link }] });
  assert.equal(await container.shell(`cat ${link}/seed`), "from the host");
});

test("a mount below a mount works in any order", async () => {
  await using pod = await node().runPod();
  const [outer, inner] = [await hostDir(), await hostDir()];
  await mkdir(join(outer, "inner"));
  await writeFile(join(inner, "seed"), "inner\n");
  const container = await pod.start({
    mounts: [
      { hostPath: inner, containerPath: "/outer/inner" },
      { hostPath: outer, containerPath: "/outer" },
    ],
  });
  assert.equal(await container.shell("cat /outer/seed /outer/inner/seed"), "from the host\ninner");
});

test("a link in the image does not lead a mount out of the root file system", async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ mounts: [{ hostPath: await hostDir(), containerPath: "/proc/../../../../escape" }] });
  assert.equal(await container.shell("cat /escape/seed"), "from the host");
});

test("CRI mounts replace the runtime's own files", async () => {
  await using pod = await node().runPod();
  const dir = await hostDir();
  const container = await pod.start({
    mounts: [
      { hostPath: join(dir, "seed"), containerPath: "/etc/hosts" },
      { hostPath: dir, containerPath: "/dev/shm" },
    ],
  });
  assert.equal(await container.shell("cat /etc/hosts /dev/shm/seed"), "from the host\nfrom the host");
});

test("/dev/shm has 64 MiB and its usual mode", async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const line = await container.shell("grep ' /dev/shm ' /proc/mounts; stat -c %a /dev/shm");
  assert.match(line, /size=65536k/);
  assert.match(line, /\n1777$/);
});

test("propagation: a later mount of the host is seen as asked", { skip: noPropagation }, async () => {
  await using pod = await node().runPod();
  await using shared = await sharedMount();
  await mkdir(join(shared.dir, "later"));
  const mount = (propagation: MountPropagation) => ({ mounts: [{ hostPath: shared.dir, containerPath: "/v", propagation }] });
  const isolated = await pod.start(mount(MountPropagation.PROPAGATION_PRIVATE));
  const following = await pod.start(mount(MountPropagation.PROPAGATION_HOST_TO_CONTAINER));
  await mustRun("mount", ["-t", "tmpfs", "none", join(shared.dir, "later")]);
  await writeFile(join(shared.dir, "later", "file"), "");
  assert.equal(await following.shell("ls /v/later"), "file");
  assert.equal(await isolated.shell("ls /v/later"), "");
  assert.equal((await following.status()).mounts[0]?.propagation, MountPropagation.PROPAGATION_HOST_TO_CONTAINER);
});

test("propagation: a mount of the container reaches the host only when bidirectional", { skip: noPropagation }, async () => {
  const privileged = { linux: { securityContext: { privileged: true, namespaceOptions: { pid: NamespaceMode.CONTAINER } } } };
  await using shared = await sharedMount();
  await using pod = await node().runPod(privileged);
  for (const [propagation, seen] of [
    [MountPropagation.PROPAGATION_BIDIRECTIONAL, ["file"]],
    [MountPropagation.PROPAGATION_HOST_TO_CONTAINER, []],
  ] as const) {
    const name = `made-${propagation}`;
    const container = await pod.start({ ...privileged, mounts: [{ hostPath: shared.dir, containerPath: "/v", propagation }] });
    await container.shell(`mkdir /v/${name} && mount -t tmpfs none /v/${name} && touch /v/${name}/file`);
    assert.deepEqual(await readdir(join(shared.dir, name)), seen);
  }
});

test("propagation from a private mount of the host is refused", { skip: noPropagation }, async () => {
  await using pod = await node().runPod();
  await using shared = await sharedMount();
  await mustRun("mount", ["--make-private", shared.dir]);
  const mounts = [{ hostPath: shared.dir, containerPath: "/v", propagation: MountPropagation.PROPAGATION_HOST_TO_CONTAINER }];
  const attempt = pod.create({ mounts }).then((container) => container.start());
  await assertRefused(node().kind, attempt, { code: status.INVALID_ARGUMENT, message: /propagation|shared/ });
});

test("read-only mounts: what is mounted below stays writable, unless recursive", async () => {
  await using pod = await node().runPod();
  await using shared = await sharedMount();
  await mkdir(join(shared.dir, "sub"));
  await mustRun("mount", ["-t", "tmpfs", "none", join(shared.dir, "sub")]);
  const plain = await pod.start({ mounts: [{ hostPath: shared.dir, containerPath: "/v", readonly: true }] });
  assert.match((await plain.exec(["/bin/touch", "/v/x"])).stderr, /Read-only file system/);
  await plain.shell("touch /v/sub/x");
  const whole = await pod.start({ mounts: [{ hostPath: shared.dir, containerPath: "/v", readonly: true, recursiveReadOnly: true }] });
  assert.match((await whole.exec(["/bin/touch", "/v/sub/x"])).stderr, /Read-only file system/);
});

test("devices", async () => {
  await using pod = await node().runPod();
  const devices = [{ hostPath: "/dev/net/tun", containerPath: "/dev/my-tun", permissions: "rw" }];
  const container = await pod.start({ devices });
  assert.equal(await container.shell("stat -c '%t %T' /dev/my-tun"), "a c8");
  await container.shell(
    "test -c /dev/null && test -c /dev/full && test -c /dev/urandom && test -L /dev/stdin && test -c /dev/tty && test -c /dev/ptmx",
  );
});

test("the image's volumes are seeded from its content and belong to the container", async () => {
  await using pod = await node().runPod();
  const image = { image: node().registry.reference("custom") };
  const first = await pod.start({ image });
  const second = await pod.start({ image });
  await waitFor("the seed", async () => (await first.shell("cat /volume/seed")) === "seeded");
  assert.equal(await first.shell("stat -c '%u %g' /volume/seed"), "1000 1000");
  await first.shell("touch /volume/mine");
  assert.equal(await second.shell("ls /volume"), "seed");
});
