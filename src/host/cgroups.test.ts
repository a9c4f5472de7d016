import assert from "node:assert/strict";
import { test } from "node:test";
import { containerCgroup, expandSlice, ownSlices, podCgroup } from "./cgroup-paths.ts";
import { cgroupDirectory, detectCgroups, layoutOf, pickCgroupDriver } from "./cgroups.ts";
import { HostError } from "./errors.ts";
import { parseMountinfo } from "./mountinfo.ts";
import { parseStat } from "./pids.ts";

const pure = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot";
const hybrid = [
  "31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755",
  "32 31 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate",
  "33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd",
  "34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
  "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
  "36 31 0:32 / /var/lib/other/memory rw - cgroup cgroup rw,memory",
].join("\n");

test("the unified layout", () => {
  const layout = layoutOf(parseMountinfo(pure), (mountPoint) => (mountPoint === "/sys/fs/cgroup" ? "cpu memory pids\n" : ""));
  assert.equal(layout.version, "v2");
  assert.deepEqual(layout.controllers, ["cpu", "memory", "pids"]);
  assert.equal(cgroupDirectory(layout, "memory", "/kubepods/x"), "/sys/fs/cgroup/kubepods/x");
});

test("the hybrid layout, and v1 without the cgroup2 mount", () => {
  const layout = layoutOf(parseMountinfo(hybrid), () => "");
  assert.equal(layout.version, "hybrid");
  assert.deepEqual(layout.controllers, ["cpu", "cpuacct", "memory"]);
  assert.equal(cgroupDirectory(layout, "cpuacct", "/a"), "/sys/fs/cgroup/cpu,cpuacct/a");
  assert.equal(cgroupDirectory(layout, "memory", "/a"), "/sys/fs/cgroup/memory/a");
  assert.equal(cgroupDirectory(layout, "name=systemd", "/a"), "/sys/fs/cgroup/systemd/a");
  assert.equal(cgroupDirectory(layout, "hugetlb", "/a"), undefined);
  const v1 = layoutOf(
    parseMountinfo(hybrid).filter(({ fsType }) => fsType !== "cgroup2"),
    () => "",
  );
  assert.equal(v1.version, "v1");
  assert.throws(() => layoutOf([], () => ""), /no control groups/);
});

test("this host has a layout", async () => {
  assert.ok((await detectCgroups()).controllers.includes("memory"));
});

test("the driver is systemd's where it runs, unless set", () => {
  const [running, absent] = [{ systemdRunning: true }, { systemdRunning: false }];
  assert.deepEqual([pickCgroupDriver("auto", running), pickCgroupDriver("auto", absent)], ["systemd", "cgroupfs"]);
  assert.deepEqual([pickCgroupDriver("cgroupfs", running), pickCgroupDriver("systemd", running)], ["cgroupfs", "systemd"]);
  assert.throws(() => pickCgroupDriver("systemd", absent), /systemd does not run here/);
});

test("the slices that pods of our own lie in", () => {
  const pod = podCgroup({ driver: "systemd", cgroupParent: "", podId: "p1", instanceId: "main-1" });
  const [inner, outer] = ownSlices("main-1");
  assert.deepEqual([inner?.slice, outer?.slice], ["aurae-main_1.slice", "aurae.slice"]);
  assert.equal(pod.path, `${inner?.path}/aurae-main_1-podp1.slice`);
  assert.equal(inner?.path, `${outer?.path}/${inner?.slice}`);
});

test("a slice's nested path", () => {
  assert.equal(expandSlice("kubepods.slice"), "kubepods.slice");
  assert.equal(expandSlice("kubepods-burstable-pod1_2.slice"), "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice");
  assert.equal(expandSlice("-.slice"), "");
  for (const bad of ["", ".slice", "a", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "a\nb.slice"]) {
    assert.throws(() => expandSlice(bad), HostError, bad);
  }
});

const request = { podId: "p1", instanceId: "main-1" };
const pods = [
  ["cgroupfs", "/kubepods/burstable/podX", "/kubepods/burstable/podX", "/kubepods/burstable/podX", "/kubepods/burstable/podX/c1"],
  ["cgroupfs", "kubepods//podX/", "/kubepods/podX", "/kubepods/podX", "/kubepods/podX/c1"],
  ["cgroupfs", "/", "/", "/", "/c1"],
  ["cgroupfs", "", "/aurae-main-1/podp1", "/aurae-main-1/podp1", "/aurae-main-1/podp1/c1"],
  ["systemd", "kubepods-podX.slice", "kubepods-podX.slice", "/kubepods.slice/kubepods-podX.slice", "kubepods-podX.slice:aurae:c1"],
  [
    "systemd",
    "/kubepods.slice/kubepods-podX.slice",
    "kubepods-podX.slice",
    "/kubepods.slice/kubepods-podX.slice",
    "kubepods-podX.slice:aurae:c1",
  ],
  [
    "systemd",
    "",
    "aurae-main_1-podp1.slice",
    "/aurae.slice/aurae-main_1.slice/aurae-main_1-podp1.slice",
    "aurae-main_1-podp1.slice:aurae:c1",
  ],
] as const;
for (const [driver, cgroupParent, parent, path, cgroupsPath] of pods) {
  test(`${driver} with cgroup_parent '${cgroupParent}'`, () => {
    const pod = podCgroup({ driver, cgroupParent, ...request });
    assert.deepEqual(pod, { driver, parent, path, owned: cgroupParent === "" });
    const container = containerCgroup(pod, "c1");
    assert.equal(container.cgroupsPath, cgroupsPath);
    assert.equal(container.path, driver === "systemd" ? `${path}/aurae-c1.scope` : cgroupsPath);
  });
}

test("a cgroup_parent that would escape or is the other driver's is refused by name", () => {
  const bad = [
    ["cgroupfs", "/a/../b"],
    ["cgroupfs", "/a\n/b"],
    ["systemd", "/kubepods/podX"],
    ["systemd", "/elsewhere.slice/kubepods-podX.slice"],
    ["systemd", "a--b.slice"],
  ] as const;
  for (const [driver, cgroupParent] of bad) {
    assert.throws(() => podCgroup({ driver, cgroupParent, ...request }), /linux\.cgroup_parent/, cgroupParent);
  }
});

test("mountinfo: optional fields, and escapes that are bytes of UTF-8", () => {
  const line = "36 35 98:0 /mnt1 /with\\040blank/\\303\\244/\\134 rw,noatime shared:1 master:2 - ext3 /dev/root\\011x rw,errors=continue";
  const [mount] = parseMountinfo(`${line}\ngarbage\n`);
  assert.deepEqual(mount, {
    mountId: 36,
    parentId: 35,
    device: "98:0",
    root: "/mnt1",
    mountPoint: "/with blank/ä/\\",
    options: ["rw", "noatime"],
    propagation: ["shared:1", "master:2"],
    fsType: "ext3",
    source: "/dev/root\tx",
    superOptions: ["rw", "errors=continue"],
  });
});

test("a process's name may hold parentheses and blanks", () => {
  const text = `7 (a) S (b) R 3 ${Array.from({ length: 17 }, (_, index) => index).join(" ")} 4242 0`;
  assert.deepEqual(parseStat(text), { pid: 7, command: "a) S (b", state: "R", parentPid: 3, startTime: 4242 });
  assert.equal(parseStat("nonsense"), undefined);
});
