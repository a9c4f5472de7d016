import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { status } from "@grpc/grpc-js";
import type { DeepPartial, LinuxContainerSecurityContext } from "../../api/gen/cri/v1/api.ts";
import { NamespaceMode, SecurityProfile_ProfileType, SupplementalGroupsPolicy } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import type { Container } from "../harness/container.ts";
import type { Pod } from "../harness/pod.ts";
import { useNode } from "../harness/use-node.ts";

const node = useNode({ images: ["busybox", "custom"] });

async function secured(pod: Pod, securityContext: DeepPartial<LinuxContainerSecurityContext>): Promise<Container> {
  return await pod.start({ linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER }, ...securityContext } } });
}

async function capabilities(container: Container, set: string): Promise<bigint> {
  const hex = await container.shell(`sed -n 's/^Cap${set}:\\t//p' /proc/1/status`);
  return BigInt(`0x${hex}`);
}

const bit = { NET_RAW: 1n << 13n, NET_ADMIN: 1n << 12n, CHOWN: 1n, SYS_ADMIN: 1n << 21n };

test("users and groups", async (t) => {
  await using pod = await node().runPod();
  const ids = "id -u; id -g; id -G";
  const cases: readonly (readonly [string, DeepPartial<LinuxContainerSecurityContext>, string])[] = [
    ["root by default", {}, "0\n0\n0"],
    ["a numeric user with its group and groups of the image", { runAsUser: { value: 1000n } }, "1000\n1000\n1000 50000"],
    ["a user that the image does not know", { runAsUser: { value: 4242n } }, "4242\n0\n0"],
    ["a user by name", { runAsUsername: "app" }, "1000\n1000\n1000 50000"],
    ["a group of its own", { runAsUser: { value: 4242n }, runAsGroup: { value: 77n } }, "4242\n77\n77"],
    ["supplemental groups", { runAsUser: { value: 4242n }, supplementalGroups: [1234n, 5678n] }, "4242\n0\n0 1234 5678"],
    [
      "supplemental groups, strictly",
      { runAsUser: { value: 1000n }, supplementalGroups: [1234n], supplementalGroupsPolicy: SupplementalGroupsPolicy.Strict },
      "1000\n1000\n1000 1234",
    ],
  ];
  for (const [name, context, expected] of cases) {
    await t.test(name, async () => {
      const container = await secured(pod, context);
      assert.equal(await container.shell(ids), expected);
    });
  }

  await t.test("status tells the user", async () => {
    const container = await secured(pod, { runAsUser: { value: 1000n }, supplementalGroups: [1234n] });
    assert.deepEqual((await container.status()).user?.linux, { uid: 1000n, gid: 1000n, supplementalGroups: [1000n, 1234n, 50000n] });
  });

  await t.test("a group without a user and an unknown user are refused", async () => {
    const { kind } = node();
    const group = { linux: { securityContext: { runAsGroup: { value: 1n } } } };
    await assertRefused(kind, pod.create(group), { code: status.INVALID_ARGUMENT, message: /run_as_group/ });
    const unknown = { linux: { securityContext: { runAsUsername: "nosuchuser" } } };
    await assertRefused(
      kind,
      pod.create(unknown).then((container) => container.start()),
      { code: status.INVALID_ARGUMENT, message: /nosuchuser/ },
    );
  });
});

test("capabilities", async () => {
  await using pod = await node().runPod();
  const usual = await secured(pod, {});
  assert.ok((await capabilities(usual, "Eff")) & bit.NET_RAW);
  assert.ok((await capabilities(usual, "Eff")) & bit.CHOWN);
  assert.equal((await capabilities(usual, "Bnd")) & (bit.NET_ADMIN | bit.SYS_ADMIN), 0n);

  const added = await secured(pod, { capabilities: { addCapabilities: ["NET_ADMIN"], dropCapabilities: ["NET_RAW"] } });
  assert.equal((await capabilities(added, "Eff")) & (bit.NET_ADMIN | bit.NET_RAW), bit.NET_ADMIN);

  const none = await secured(pod, { capabilities: { dropCapabilities: ["ALL"] } });
  for (const set of ["Bnd", "Eff", "Prm", "Inh", "Amb"]) assert.equal(await capabilities(none, set), 0n, set);

  const one = await secured(pod, { capabilities: { dropCapabilities: ["ALL"], addCapabilities: ["CHOWN"] } });
  assert.equal(await capabilities(one, "Bnd"), bit.CHOWN);

  const all = await secured(pod, { capabilities: { addCapabilities: ["ALL"] } });
  assert.ok((await capabilities(all, "Eff")) & bit.SYS_ADMIN);

  const user = await secured(pod, { runAsUser: { value: 1000n } });
  assert.equal(await capabilities(user, "Eff"), 0n);
});

test("privileged", async () => {
  const privileged = { privileged: true, namespaceOptions: { pid: NamespaceMode.CONTAINER } };
  await using pod = await node().runPod({ linux: { securityContext: privileged } });
  const container = await pod.start({
    linux: { securityContext: { ...privileged, seccomp: { profileType: SecurityProfile_ProfileType.RuntimeDefault } } },
  });
  assert.match(await container.shell("grep ^Seccomp: /proc/self/status"), /\t0$/);
  assert.ok((await capabilities(container, "Eff")) & bit.SYS_ADMIN);
  await container.shell("mkdir /m && mount -t tmpfs none /m && touch /m/file && umount /m");
  await container.shell("test -c /dev/kmsg && test -c /dev/loop-control");
  assert.match(await container.shell("grep ' /sys ' /proc/mounts"), / rw,/);

  await using plain = await node().runPod();
  const refused = plain.create({ linux: { securityContext: { privileged: true } } });
  await assertRefused(node().kind, refused, { code: status.INVALID_ARGUMENT, message: /privileged/ });
});

/** What the kubelet sends for an ordinary container. */
const kubeletPaths = {
  maskedPaths: [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
  ],
  readonlyPaths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
};

test("what an ordinary container must not do", async () => {
  await using pod = await node().runPod();
  const container = await secured(pod, kubeletPaths);
  const attempts = [
    "mount -t tmpfs none /tmp",
    "hostname other",
    "mknod /tmp/disk b 8 0 && cat /tmp/disk",
    // The value that is there already, in case it is written after all.
    "cat /proc/sys/kernel/panic > /tmp/value && cat /tmp/value > /proc/sys/kernel/panic",
    "echo 1 > /sys/kernel/uevent_seqnum",
    "mkdir /sys/fs/cgroup/memory/x || mkdir /sys/fs/cgroup/x/y",
    "cat /dev/kmsg",
    'test -n "$(cat /proc/timer_list)"',
  ];
  for (const script of attempts) assert.notEqual((await container.exec(["/bin/sh", "-c", script], 5)).exitCode, 0, script);
});

test("read-only root file system", async () => {
  await using pod = await node().runPod();
  const container = await secured(pod, { readonlyRootfs: true });
  const { exitCode, stderr } = await container.exec(["/bin/touch", "/tmp/x"]);
  assert.deepEqual([exitCode, stderr], [1, "touch: /tmp/x: Read-only file system\n"]);
  await container.shell("touch /dev/shm/x");
});

test("no_new_privs decides what a setuid program may become", async () => {
  await using pod = await node().runPod();
  const ids = "suid-cat /proc/self/status | grep -E '^Uid'";
  const free = await secured(pod, { runAsUser: { value: 1000n } });
  assert.equal(await free.shell(ids), "Uid:\t1000\t0\t0\t0");
  const bound = await secured(pod, { runAsUser: { value: 1000n }, noNewPrivs: true });
  assert.equal(await bound.shell(ids), "Uid:\t1000\t1000\t1000\t1000");
});

test("masked and read-only paths", async () => {
  await using pod = await node().runPod();
  const container = await secured(pod, { maskedPaths: ["/etc/group", "/var/www", "/no/such"], readonlyPaths: ["/tmp", "/no/such"] });
  assert.equal(await container.shell("cat /etc/group; ls /var/www"), "");
  assert.match((await container.exec(["/bin/touch", "/tmp/x"])).stderr, /Read-only file system/);
  const usual = await secured(pod, { maskedPaths: ["/proc/kcore", "/proc/timer_list"], readonlyPaths: ["/proc/sys", "/proc/irq"] });
  assert.match((await usual.exec(["/bin/sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])).stderr, /Read-only file system/);
});

test("seccomp: absent, unconfined, the runtime's default, a profile of the host", async (t) => {
  await using pod = await node().runPod();
  const mode = "sed -n 's/^Seccomp:\\t//p' /proc/1/status";
  await t.test("absent and unconfined are 0", async () => {
    assert.equal(await (await secured(pod, {})).shell(mode), "0");
    const unconfined = { seccomp: { profileType: SecurityProfile_ProfileType.Unconfined } };
    const container = await secured(pod, unconfined);
    assert.equal(await container.shell(mode), "0");
    await container.shell("unshare -U true");
  });
  await t.test("the default confines and forbids", async () => {
    const container = await secured(pod, { seccomp: { profileType: SecurityProfile_ProfileType.RuntimeDefault } });
    assert.equal(await container.shell(mode), "2");
    assert.match((await container.exec(["unshare", "-U", "true"])).stderr, /Operation not permitted/);
  });
  await t.test("a localhost profile is applied", async () => {
    const localhostRef = join(node().prefix.dir, "no-chmod.json");
    const forbidden = { names: ["chmod", "fchmod", "fchmodat"], action: "SCMP_ACT_ERRNO" };
    await writeFile(localhostRef, JSON.stringify({ defaultAction: "SCMP_ACT_ALLOW", syscalls: [forbidden] }));
    const container = await secured(pod, { seccomp: { profileType: SecurityProfile_ProfileType.Localhost, localhostRef } });
    assert.match((await container.exec(["/bin/chmod", "400", "/tmp"])).stderr, /Operation not permitted/);
  });
  await t.test("a profile that does not exist is an error", async () => {
    const seccomp = { profileType: SecurityProfile_ProfileType.Localhost, localhostRef: "/no/such/profile.json" };
    await assertRefused(node().kind, pod.create({ linux: { securityContext: { seccomp } } }), {
      code: status.INVALID_ARGUMENT,
      message: /\/no\/such\/profile\.json/,
    });
  });
});

test("SYS_ADMIN may set the hostname, unless seccomp says no", async () => {
  await using pod = await node().runPod();
  const sysAdmin = { capabilities: { addCapabilities: ["SYS_ADMIN"] } };
  assert.equal(await (await secured(pod, sysAdmin)).shell("hostname changed && hostname"), "changed");
  const localhostRef = join(node().prefix.dir, "no-sethostname.json");
  await writeFile(
    localhostRef,
    JSON.stringify({ defaultAction: "SCMP_ACT_ALLOW", syscalls: [{ names: ["sethostname"], action: "SCMP_ACT_ERRNO" }] }),
  );
  const bound = await secured(pod, { ...sysAdmin, seccomp: { profileType: SecurityProfile_ProfileType.Localhost, localhostRef } });
  assert.notEqual((await bound.exec(["/bin/hostname", "other"])).exitCode, 0);
});

test("oom_score_adj", async () => {
  await using pod = await node().runPod();
  const raised = await pod.start({ linux: { resources: { oomScoreAdj: 500n } } });
  assert.equal(await raised.shell("cat /proc/1/oom_score_adj"), "500");
  // Where the daemon may not lower the score, the request is clamped, not refused.
  const lowered = await pod.start({ linux: { resources: { oomScoreAdj: -998n } } });
  assert.ok(Number(await lowered.shell("cat /proc/1/oom_score_adj")) <= 0);
});
