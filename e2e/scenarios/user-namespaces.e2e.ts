import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { chmod, chown, mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { test } from "node:test";

import { status } from "@grpc/grpc-js";

import type { ContainerConfig, DeepPartial, IDMapping, NamespaceOption } from "../../api/gen/cri/v1/api.ts";
import { MountPropagation, NamespaceMode } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { mustRun, runCommand } from "../harness/command.ts";
import { unary } from "../harness/cri-client.ts";
import type { Pod, PodOptions } from "../harness/pod.ts";
import { notInGuest, runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const node = useNode({ images: ["busybox", "custom"] });
const oursOnly = runtimeUnderTest() === "containerd" ? "containerd does otherwise" : false;
const HOST_ID = 300_000;
let count = 0;

function mapping(hostId = HOST_ID): IDMapping {
  return { containerId: 0, hostId, length: 65_536 };
}

function users(hostId?: number): DeepPartial<NamespaceOption> {
  return { usernsOptions: { mode: NamespaceMode.POD, uids: [mapping(hostId)], gids: [mapping(hostId)] } };
}

function inUserNamespace(options: DeepPartial<NamespaceOption> = {}): PodOptions {
  return { linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER, ...users(), ...options } } } };
}

function runPod(options: DeepPartial<NamespaceOption> = {}): Promise<Pod> {
  return node().runPod(inUserNamespace(options));
}

/** A fresh directory of the host with two files: `root` of uid 0, `app` of uid 1000. */
async function hostDir(): Promise<string> {
  const dir = join(node().prefix.dir, `volume-${++count}`);
  await mkdir(dir);
  for (const [name, uid] of [
    ["root", 0],
    ["app", 1000],
  ] as const) {
    await writeFile(join(dir, name), `${name}\n`);
    await chown(join(dir, name), uid, uid);
  }
  return dir;
}

/** As the kubelet asks for every volume of such a pod. */
function mapped(hostPath: string, containerPath: string) {
  return { hostPath, containerPath, uidMappings: [mapping()], gidMappings: [mapping()] };
}

/** The host's ids of the process that was started with these arguments. */
function hostUids(args: string): string[] {
  const processes = globSync("/proc/[0-9]*/cmdline").filter((path) => {
    try {
      return readFileSync(path, "utf8").split("\0").join(" ").trim() === args;
    } catch {
      return false;
    }
  });
  return processes.flatMap((path) => /^Uid:\t(.*)$/m.exec(readFileSync(path.replace("cmdline", "status"), "utf8"))?.[1]?.split("\t") ?? []);
}

/** All that a server sends. */
async function received(host: string, port: number): Promise<string> {
  const socket = connect(port, host);
  socket.setTimeout(10_000, () => socket.destroy(new Error("the server says nothing")));
  let text = "";
  for await (const chunk of socket) text += String(chunk);
  return text;
}

test("the handlers advertise user namespaces", async () => {
  const { runtime } = node().clients;
  const { runtimeHandlers, features: all } = await unary(runtime, runtime.status, { verbose: false });
  if (node().kind === "aurae-cri") assert.equal(all?.userNamespacesHostNetwork, true);
  assert.ok(runtimeHandlers.length > 0);
  for (const { name, features } of runtimeHandlers) assert.equal(features?.userNamespaces, true, `handler '${name}'`);
});

test("root of a pod is root of its own files and of nothing else", async () => {
  await using pod = await runPod();
  const container = await pod.start();
  const { namespaces } = (await pod.status()).linux ?? {};
  assert.deepEqual(namespaces?.options?.usernsOptions, { mode: NamespaceMode.POD, uids: [mapping()], gids: [mapping()] });
  for (const map of ["uid_map", "gid_map"]) {
    assert.deepEqual((await container.shell(`cat /proc/1/${map}`)).trim().split(/\s+/), ["0", String(HOST_ID), "65536"]);
  }
  assert.equal(await container.shell("id -u; id -g"), "0\n0");
  assert.equal(await container.shell("stat -c %u:%g / /bin/busybox /etc/passwd"), "0:0\n0:0\n0:0");
  await container.shell("touch /made /tmp/made && chown 7:8 /tmp/made && mkdir /dir && rm /etc/passwd");
  assert.equal(await container.shell("stat -c %u:%g /made /tmp/made /dir"), "0:0\n7:8\n0:0");
  // What only the host's own root may do.
  for (const command of ["echo 1 > /proc/sys/kernel/sysrq", "echo -1000 > /proc/1/oom_score_adj", "chown 70000 /made"])
    assert.notEqual((await container.exec(["/bin/sh", "-c", command])).exitCode, 0, command);
});

test("on the host neither a process nor a file of the pod is root's", {
  skip: notInGuest("its processes and files are the guest's") || oursOnly,
}, async () => {
  await using pod = await runPod();
  const container = await pod.start({ command: ["/bin/sleep", "424242"] });
  await container.shell("echo x > /made; mkdir -p /a/b; chown 5 /a/b");
  assert.deepEqual(hostUids("/bin/sleep 424242"), Array(4).fill(String(HOST_ID)));
  const [upper] = globSync(join(node().prefix.dir, "**", "upper", "made"));
  assert.ok(upper !== undefined);
  const dir = join(upper, "..");
  for (const [path, uid] of [
    [".", 0],
    ["made", 0],
    ["a", 0],
    ["a/b", 5],
  ] as const)
    assert.equal((await stat(join(dir, path))).uid, HOST_ID + uid, path);
});

test("the pod's other namespaces are its user namespace's", async () => {
  await using pod = await runPod();
  const container = await pod.start({ linux: { securityContext: { capabilities: { addCapabilities: ["ALL"] } } } });
  await container.shell("hostname other && test $(hostname) = other");
  await container.shell("ip link set lo mtu 1400 && ping -c 1 -w 5 127.0.0.1");
  await container.shell("mkdir /m && mount -t tmpfs none /m && touch /m/file && umount /m");
  for (const path of ["/sys/class/net/lo/mtu", "/proc/sys/kernel/hostname"]) await container.shell(`cat ${path}`);
  assert.match(await container.shell("cat /proc/mounts"), / \/dev\/mqueue mqueue /);
  assert.match((await pod.status()).network?.ip ?? "", /\d/);
});

test("its network is the pod's own: a low port, and the way there from the host", async () => {
  await using pod = await runPod();
  const container = await pod.start({ command: ["/bin/nc", "-l", "-p", "80", "-e", "/bin/echo", "served"] });
  await waitFor("the server to listen", async () => (await container.shell("netstat -ltn")).includes(":80 "));
  const ip = (await pod.status()).network?.ip ?? "";
  assert.equal(await received(ip, 80), "served\n");
  assert.equal((await container.waitExited()).exitCode, 0);
});

test("what every container has belongs to whom it should", async () => {
  await using pod = await runPod();
  const container = await pod.start();
  assert.equal(await container.shell("stat -c %u:%g:%a /dev/shm"), "0:0:1777");
  await container.shell("echo x > /dev/shm/file && rm /dev/shm/file");
  for (const file of ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"]) await container.shell(`cat ${file}`);
  await container.shell("echo x > /dev/null && head -c 1 /dev/zero && head -c 1 /dev/urandom && test -e /dev/ptmx");
  await container.shell("ls /sys/fs/cgroup");
});

test("the standard streams can be opened anew, by any user and on a terminal too", async () => {
  await using pod = await runPod();
  for (const uid of [0n, 1000n]) {
    const linux = { securityContext: { runAsUser: { value: uid } } };
    const plain = await pod.runToEnd({ command: ["/bin/sh", "-c", "echo out > /proc/self/fd/1; echo err > /proc/self/fd/2"], linux });
    assert.deepEqual(plain, { exitCode: 0, stdout: "out\n", stderr: "err\n" });
    const onTerminal = await pod.runToEnd({ command: ["/bin/sh", "-c", "echo x > $(readlink /proc/self/fd/0)"], tty: true, linux });
    assert.equal(onTerminal.exitCode, 0, onTerminal.stdout);
  }
});

test("an exec'd process is in the user namespace, with the container's groups", async () => {
  await using pod = await runPod();
  const container = await pod.start({ linux: { securityContext: { runAsUser: { value: 1000n }, supplementalGroups: [4321n] } } });
  assert.match((await container.exec(["/bin/cat", "/proc/self/uid_map"])).stdout, new RegExp(`^\\s+0\\s+${HOST_ID}\\s`));
  assert.equal(await container.shell("id -u; id -G"), "1000\n1000 4321 50000");
});

test("images with users and volumes of their own", async () => {
  await using pod = await runPod();
  const container = await pod.start({ image: { image: node().registry.reference("custom") }, command: ["/bin/sleep", "infinity"] });
  assert.equal(await container.shell("id -u; stat -c %u:%g /volume /volume/seed; pwd"), "1000\n1000:1000\n1000:1000\n/srv/app");
  await container.shell("echo more >> /volume/seed");
});

test("two pods with other ids share an image", async () => {
  await using first = await runPod();
  await using second = await runPod(users(HOST_ID + 65_536));
  for (const pod of [first, second]) {
    const container = await pod.start();
    assert.equal(await container.shell("stat -c %u /bin/busybox && touch /bin/made && stat -c %u /bin/made"), "0\n0");
  }
});

test("volumes are mapped where the mount asks for it", async () => {
  await using pod = await runPod();
  const [dir, other] = [await hostDir(), await hostDir()];
  await chmod(other, 0o777);
  const container = await pod.start({
    mounts: [
      mapped(dir, "/mapped"),
      { ...mapped(dir, "/fixed"), readonly: true },
      mapped(join(dir, "app"), "/app"),
      { hostPath: other, containerPath: "/plain" },
    ],
  });
  assert.equal(
    await container.shell("stat -c %u:%g /mapped /mapped/root /mapped/app /fixed/app /app"),
    "0:0\n0:0\n1000:1000\n1000:1000\n1000:1000",
  );
  await container.shell("echo new > /mapped/new && chown 1000:1000 /mapped/root && echo more >> /app");
  assert.equal(await readFile(join(dir, "app"), "utf8"), "app\nmore\n");
  assert.deepEqual([(await stat(join(dir, "new"))).uid, (await stat(join(dir, "root"))).uid], [0, 1000]);
  assert.match((await container.exec(["/bin/touch", "/fixed/x"])).stderr, /Read-only file system/);
  // Without a mapping the host's ids are nobody's in the pod, and the pod's are its own on the host.
  assert.equal(await container.shell("stat -c %u /plain/root"), "65534");
  await container.shell("echo mine > /plain/mine");
  assert.equal((await stat(join(other, "mine"))).uid, HOST_ID);
});

test("a private directory of the host is no obstacle", async () => {
  await using pod = await runPod();
  const parent = await hostDir();
  await mkdir(join(parent, "inner"));
  await writeFile(join(parent, "inner", "file"), "reached\n");
  await chmod(parent, 0o700);
  const container = await pod.start({ mounts: [mapped(join(parent, "inner"), "/inner")] });
  assert.equal(await container.shell("cat /inner/file"), "reached");
});

test("a file system that knows no mapping is refused by name", { skip: oursOnly }, async () => {
  await using pod = await runPod();
  const dir = await hostDir();
  const [upper, lower, target] = [join(dir, "upper"), join(dir, "lower"), join(dir, "target")];
  for (const path of [upper, lower, target]) await mkdir(path);
  await mustRun("mount", ["-t", "overlay", "none", "-o", `lowerdir=${upper}:${lower}`, target]);
  try {
    const refused = pod.create({ mounts: [mapped(target, "/data")] });
    await assertRefused(node().kind, refused, { code: status.FAILED_PRECONDITION, message: /knows no mapping of ids/ });
    await using container = await pod.start({ mounts: [{ hostPath: target, containerPath: "/data" }] });
    await container.shell("ls /data");
  } finally {
    await runCommand("umount", [target]);
  }
});

test("a device of the host is the container's own", { skip: notInGuest("devices of the host make the pod flat") }, async () => {
  await using pod = await runPod();
  const devices = [{ hostPath: "/dev/fuse", containerPath: "/dev/renamed", permissions: "rwm" }];
  const container = await pod.start({ devices });
  if (node().kind === "aurae-cri") assert.equal(await container.shell("stat -c %u:%g /dev/renamed"), "0:0");
  await container.shell("test -c /dev/renamed && exec 3<> /dev/renamed");
  assert.notEqual((await container.exec(["/bin/mknod", "/dev/mine", "c", "1", "3"])).exitCode, 0);
});

test("a pid namespace of the pod", async () => {
  await using pod = await runPod({ pid: NamespaceMode.POD });
  const first = await pod.start({ command: ["/bin/sleep", "515151"] });
  const second = await pod.start();
  assert.match(await second.shell("cat /proc/*/cmdline | tr '\\0' ' '"), /sleep 515151/);
  await first.stop(0);
});

test("mounts of the host appear in the container", { skip: notInGuest("mounts do not pass between the host and a guest") }, async () => {
  await using pod = await runPod();
  const dir = await hostDir();
  await mustRun("mount", ["-t", "tmpfs", "none", dir]);
  await mustRun("mount", ["--make-shared", dir]);
  try {
    const mount = { ...mapped(dir, "/data"), propagation: MountPropagation.PROPAGATION_HOST_TO_CONTAINER };
    await using container = await pod.start({ mounts: [mount] });
    await mkdir(join(dir, "later"));
    await mustRun("mount", ["-t", "tmpfs", "none", join(dir, "later")]);
    await container.shell("grep -q /data/later /proc/mounts");
    // What the runtime took down when the container was made stayed where it was on the host.
    await mustRun("mountpoint", ["-q", join(dir, "later")]);
  } finally {
    await runCommand("umount", ["-R", dir]);
  }
});

test("on the host's network /sys is the host's, read-only", {
  skip: notInGuest("the host's network is not inside a microVM") || oursOnly,
}, async () => {
  await using pod = await runPod({ network: NamespaceMode.NODE });
  const container = await pod.start();
  assert.match(await container.shell("grep ' /sys ' /proc/mounts"), / ro[, ]/);
  assert.equal(await container.shell("cat /sys/class/net/lo/ifindex"), "1");
});

test("kill -9 of the daemon: the pod goes on", async () => {
  await using pod = await runPod();
  const container = await pod.start({ mounts: [mapped(await hostDir(), "/data")] });
  await node().kill9();
  await node().startDaemon();
  assert.equal(await container.shell("stat -c %u /data/app"), "1000");
  const later = await pod.start();
  assert.equal(await later.shell("stat -c %u /bin/busybox"), "0");
});

test("what makes no sense is refused, and leaves the pod usable", async (t) => {
  const { kind } = node();
  await using pod = await runPod();
  const dir = await hostDir();
  const inContainer = (options: DeepPartial<NamespaceOption>) => ({
    linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER, ...options } } },
  });
  const cases: readonly (readonly [string, DeepPartial<ContainerConfig>, RegExp])[] = [
    ["other mappings than the sandbox's", inContainer(users(HOST_ID + 1)), /userns_options/],
    ["the node's user namespace", inContainer({}), /userns_options/],
    ["a mount with another mapping", { mounts: [{ ...mapped(dir, "/d"), uidMappings: [mapping(5)] }] }, /mounts\[0\]\.uidMappings/],
    ["half a mapping", { mounts: [{ ...mapped(dir, "/d"), gidMappings: [] }] }, /mounts\[0\]\.gidMappings/],
    ["a user beyond the mapping", { linux: { securityContext: { runAsUser: { value: 70_000n } } } }, /70000/],
  ];
  for (const [name, options, message] of cases) {
    await t.test(name, { skip: oursOnly }, async () => {
      await assertRefused(kind, pod.create(options), { code: status.INVALID_ARGUMENT, message });
    });
  }
  await t.test("mounts that are to reach the host", { skip: oursOnly || notInGuest("refused as needing the host") }, async () => {
    const mounts = [{ ...mapped(dir, "/d"), propagation: MountPropagation.PROPAGATION_BIDIRECTIONAL }];
    await assertRefused(kind, pod.create({ mounts }), { code: status.INVALID_ARGUMENT, message: /BIDIRECTIONAL/ });
  });
  await (await pod.start()).shell("true");
  await t.test("sandboxes", { skip: oursOnly }, async () => {
    const { linux } = inUserNamespace();
    const privileged = { linux: { securityContext: { ...linux?.securityContext, privileged: true } } };
    await assertRefused(kind, node().runPod(privileged), { code: status.INVALID_ARGUMENT, message: /privileged/ });
    await assertRefused(kind, runPod({ pid: NamespaceMode.NODE }), { code: status.INVALID_ARGUMENT, message: /namespace_options\.pid/ });
  });
  await using plain = await node().runPod();
  await assertRefused(kind, plain.create({ mounts: [mapped(dir, "/d")] }), { code: status.INVALID_ARGUMENT, message: /uidMappings/ });
});
