import assert from "node:assert/strict";
import { mkdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { ContainerEventType, ContainerState } from "../../api/gen/cri/v1/api.ts";
import { mustRun, runCommand } from "../harness/command.ts";
import { OpenStream } from "../harness/cri-stream.ts";
import { runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const skip = runtimeUnderTest() === "containerd" ? "about our microVMs" : false;
const node = useNode({ pods: "both" });
const inVm = { runtimeHandler: "aurae-vm" };
let count = 0;

/** A fresh directory of the host that holds one file, `seed`. */
async function hostDir(): Promise<string> {
  const dir = join(node().prefix.dir, `volume-${++count}`);
  await mkdir(dir);
  await writeFile(join(dir, "seed"), "from the host\n");
  return dir;
}

/** A tmpfs of the host, as the kubelet mounts one for a Secret. */
async function hostMount(): Promise<AsyncDisposable & { readonly dir: string }> {
  const dir = await hostDir();
  await mustRun("mount", ["-t", "tmpfs", "none", dir]);
  await writeFile(join(dir, "seed"), "from a mount\n");
  return {
    dir,
    async [Symbol.asyncDispose]() {
      await runCommand("umount", ["-l", dir]);
    },
  };
}

test("a directory read-write, one read-only, a single file, and a link as the source", { skip }, async () => {
  await using pod = await node().runPod(inVm);
  const [writable, fixed] = [await hostDir(), await hostDir()];
  const link = join(node().prefix.dir, `link-${count}`);
  await symlink(fixed, link);
  const container = await pod.start({
    mounts: [
      { hostPath: writable, containerPath: "/deep/new/writable" },
      { hostPath: fixed, containerPath: "/fixed", readonly: true },
      { hostPath: join(writable, "seed"), containerPath: "/etc/seed" },
      { hostPath: link, containerPath: "/linked", readonly: true },
    ],
  });
  assert.equal(
    await container.shell("cat /deep/new/writable/seed /fixed/seed /etc/seed /linked/seed"),
    "from the host\n".repeat(4).trimEnd(),
  );
  await container.shell(
    "mkdir /deep/new/writable/dir && echo inside > /deep/new/writable/dir/made && chmod 640 /deep/new/writable/dir/made",
  );
  assert.equal(await readFile(join(writable, "dir", "made"), "utf8"), "inside\n");
  await container.shell("echo through the file > /etc/seed");
  assert.equal(await readFile(join(writable, "seed"), "utf8"), "through the file\n");
  for (const path of ["/fixed/made", "/fixed/seed", "/linked/made"])
    assert.match((await container.exec(["/bin/touch", path])).stderr, /Read-only file system/, path);
  await writeFile(join(fixed, "later"), "later\n");
  assert.equal(await container.shell("cat /fixed/later /linked/later"), "later\nlater");
  await rm(join(fixed, "later"));
  // The guest may remember a name for as long as any kernel of a network file system does.
  const read = () => container.exec(["/bin/cat", "/fixed/later"]);
  await waitFor("the file to be gone inside", async () => (await read()).exitCode !== 0, { timeoutMs: 3000, intervalMs: 100 });
});

test("nothing of the host beside a volume can be reached through it", { skip }, async () => {
  await using pod = await node().runPod(inVm);
  const dir = await hostDir();
  await symlink(join(dir, "..", "config.toml"), join(dir, "out"));
  await symlink("/etc/hostname", join(dir, "absolute"));
  const container = await pod.start({ mounts: [{ hostPath: dir, containerPath: "/v" }] });
  assert.notEqual((await container.exec(["/bin/cat", "/v/out"])).exitCode, 0);
  assert.equal(await container.shell("cat /v/absolute"), "pod-host", "a link means what it means in the container");
  assert.deepEqual((await container.shell("ls /v/..")).split("\n").includes("config.toml"), false);
});

/** As the kubelet writes ConfigMaps: a fresh directory, and one rename of the link that leads to it. */
async function publish(dir: string, version: string, content: string): Promise<void> {
  await mkdir(join(dir, `..${version}`));
  await writeFile(join(dir, `..${version}`, "key"), content);
  await symlink(`..${version}`, join(dir, "..data_tmp"));
  await rename(join(dir, "..data_tmp"), join(dir, "..data"));
}

test("the kubelet's swap of a ConfigMap is seen inside, whole, and the old version can be removed", { skip }, async () => {
  await using pod = await node().runPod(inVm);
  const dir = join(node().prefix.dir, `volume-${++count}`);
  await mkdir(dir);
  await publish(dir, "1", "first\n");
  await symlink("..data/key", join(dir, "key"));
  // Read all the time: a swap must never show a missing file.
  const reader = "while :; do cat /config/key || echo missing; usleep 20000; done";
  const container = await pod.start({
    mounts: [{ hostPath: dir, containerPath: "/config", readonly: true }],
    command: ["/bin/sh", "-c", reader],
  });
  assert.equal(await container.shell("cat /config/key"), "first");
  for (const version of ["2", "3", "4"]) {
    await publish(dir, version, `version ${version}\n`);
    await waitFor(`version ${version} inside`, async () => (await container.shell("cat /config/key")) === `version ${version}`);
    await waitFor("the reader to see it", async () => (await container.logText("stdout")).endsWith(`version ${version}\n`));
    await rm(join(dir, `..${Number(version) - 1}`), { recursive: true });
  }
  assert.equal(await container.shell("ls -A /config | sort"), "..4\n..data\nkey");
  assert.doesNotMatch(await container.logText("stdout"), /missing/);
});

test("what a container wrote as its last is on the host before its end is told", { skip }, async () => {
  await using pod = await node().runPod(inVm);
  const { runtime } = node().clients;
  using events = await OpenStream.open(runtime, runtime.getContainerEvents, {});
  const path = join(await hostDir(), "termination-log");
  for (let round = 0; round < 3; round++) {
    await writeFile(path, "");
    const container = await pod.start({
      mounts: [{ hostPath: path, containerPath: "/dev/termination-log" }],
      command: ["/bin/sh", "-c", `printf 'the reason of round ${round}' > /dev/termination-log; exit 3`],
    });
    await waitFor("the event of its end", () =>
      events.messages.some(
        ({ containerId, containerEventType }) =>
          containerId === container.id && containerEventType === ContainerEventType.CONTAINER_STOPPED_EVENT,
      ),
    );
    assert.equal(await readFile(path, "utf8"), `the reason of round ${round}`);
    const { state, exitCode } = await container.status();
    assert.deepEqual([state, exitCode], [ContainerState.CONTAINER_EXITED, 3]);
  }
});

test("a volume's mount can be unmounted as soon as its pod is stopped", { skip }, async () => {
  await using volume = await hostMount();
  await using pod = await node().runPod(inVm);
  const container = await pod.start({
    mounts: [{ hostPath: volume.dir, containerPath: "/v" }],
    command: ["/bin/sh", "-c", "exec 3>/v/open; cd /v; while :; do echo busy >&3; usleep 10000; done"],
  });
  await waitFor("the file", async () => (await readFile(join(volume.dir, "open"), "utf8")).includes("busy"));
  assert.equal(await container.shell("cat /v/seed"), "from a mount");
  await pod.stop();
  await mustRun("umount", [volume.dir]);
});

test("a volume is given back with its container, while the pod goes on", { skip }, async () => {
  await using volume = await hostMount();
  await using pod = await node().runPod(inVm);
  const other = await pod.start({ mounts: [{ hostPath: await hostDir(), containerPath: "/v" }] });
  const container = await pod.start({ mounts: [{ hostPath: volume.dir, containerPath: "/v" }] });
  assert.equal(await container.shell("cat /v/seed"), "from a mount");
  await container.stop(0);
  await container.remove();
  await mustRun("umount", [volume.dir]);
  assert.equal(await other.shell("cat /v/seed"), "from the host");
});
