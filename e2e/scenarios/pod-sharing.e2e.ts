import assert from "node:assert/strict";
import { test } from "node:test";

import { status } from "@grpc/grpc-js";

import { ContainerState, NamespaceMode } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const node = useNode();

test("two containers of a pod share network, IPC and hostname, but no root file system", async (t) => {
  await using pod = await node().runPod({ hostname: "shared-host" });
  const server = await pod.start({ command: ["/bin/httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/var/www"] });
  const client = await pod.start();

  await t.test("127.0.0.1", async () => {
    const page = await waitFor("the web server", () => client.shell("wget -q -O - http://127.0.0.1:8080/"));
    assert.equal(page, "hello from the pod");
  });

  await t.test("System V shared memory and /dev/shm", async () => {
    await server.shell("ipcmk -M 12345 && echo posix > /dev/shm/from-server");
    assert.match(await client.shell("cat /proc/sysvipc/shm"), /\b12345\b/);
    assert.equal(await client.shell("cat /dev/shm/from-server"), "posix");
  });

  await t.test("namespaces: net, ipc and uts are the pod's, mnt and pid the container's", async () => {
    const namespaces = async (name: string) => [
      await server.shell(`readlink /proc/self/ns/${name}`),
      await client.shell(`readlink /proc/self/ns/${name}`),
    ];
    for (const name of ["net", "ipc", "uts"]) {
      const [left, right] = await namespaces(name);
      assert.equal(left, right, name);
    }
    for (const name of ["mnt", "pid"]) {
      const [left, right] = await namespaces(name);
      assert.notEqual(left, right, name);
    }
  });

  await t.test("hostname", async () => {
    assert.equal(await server.shell("hostname"), "shared-host");
    assert.equal(await client.shell("hostname"), "shared-host");
  });

  await t.test("root file systems", async () => {
    await server.shell("touch /tmp/only-here");
    assert.equal((await client.exec(["/bin/ls", "/tmp/only-here"])).exitCode, 1);
  });
});

test("a pod's own pid namespace is shared by its containers and reaps orphans", async () => {
  await using pod = await node().runPod({ linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.POD } } } });
  const first = await pod.start({ command: ["/bin/sleep", "98765"] });
  const second = await pod.start();
  assert.match(await second.shell("ps -o args"), /sleep 98765/);
  assert.equal(await first.shell("readlink /proc/self/ns/pid"), await second.shell("readlink /proc/self/ns/pid"));
  assert.doesNotMatch(await second.shell("tr '\\0' ' ' < /proc/1/cmdline"), /98765/);
});

test("a container joins the pid namespace of another one, which must run, be of its pod and stay until it is started", async () => {
  await using pod = await node().runPod();
  const target = await pod.start({ command: ["/bin/sh", "-c", "sleep 87654 & exec sleep infinity"] });
  const joining = (targetId: string) => ({ linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.TARGET, targetId } } } });
  const debug = await pod.start(joining(target.id));
  assert.match(await debug.shell("ps -o args"), /sleep 87654/);
  assert.equal(await debug.shell("readlink /proc/self/ns/pid"), await target.shell("readlink /proc/self/ns/pid"));
  assert.notEqual(await debug.shell("readlink /proc/self/ns/mnt"), await target.shell("readlink /proc/self/ns/mnt"));
  await debug.stop(1);
  assert.equal((await target.status()).state, ContainerState.CONTAINER_RUNNING, "the target does not end with who looks at it");

  const { kind } = node();
  const field = "config.linux.security_context.namespace_options.target_id";
  await using other = await node().runPod();
  const stranger = await other.start();
  await assertRefused(kind, pod.create(joining(stranger.id)), {
    code: status.INVALID_ARGUMENT,
    message: new RegExp(`^${field}: ${stranger.id} is not`),
  });
  await assertRefused(kind, pod.create(joining(target.id.slice(0, 12))), { code: status.INVALID_ARGUMENT, message: new RegExp(field) });
  const notStarted = await pod.create();
  await assertRefused(kind, pod.create(joining(notStarted.id)), {
    code: status.FAILED_PRECONDITION,
    message: /target of a pid namespace must be RUNNING/,
  });
  const late = await pod.create(joining(target.id));
  await target.stop(0);
  await assertRefused(kind, late.start(), { code: status.FAILED_PRECONDITION, message: /exited|RUNNING/ });
});

test("two pods do not see each other's IPC and loopback", async () => {
  await using one = await node().runPod();
  await using other = await node().runPod();
  const here = await one.start({ command: ["/bin/httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/var/www"] });
  const there = await other.start();
  await here.shell("ipcmk -M 54321 && touch /dev/shm/mine");
  assert.doesNotMatch(await there.shell("cat /proc/sysvipc/shm"), /\b54321\b/);
  assert.equal(await there.shell("ls /dev/shm"), "");
  assert.notEqual((await there.exec(["/bin/wget", "-q", "-O", "-", "http://127.0.0.1:8080/"])).exitCode, 0);
});
