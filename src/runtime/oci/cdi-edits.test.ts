import assert from "node:assert/strict";
import { suite, test } from "node:test";
import type { CdiEdits } from "../ports.ts";
import { withCdi, withCdiGroups, withCdiNodes } from "./cdi-edits.ts";
import { buildOciSpec } from "./spec.ts";
import { container, deviceNode, hostMount, specInput } from "./test-input.ts";

const edits: CdiEdits = {
  env: ["A=device", "B=x=y"],
  deviceNodes: [
    { containerPath: "/dev/a", hostPath: "/dev/a", type: "c", major: 5, minor: 6, fileMode: 0o600, permissions: "r", uid: 9 },
    { containerPath: "/dev/b", hostPath: "/dev/b", type: "b", major: 7, minor: 8, fileMode: 0o660, permissions: "rw" },
  ],
  mounts: [
    { hostPath: "/lib/gpu", containerPath: "/opt/gpu", type: "bind", options: ["rbind", "ro", "nosuid", "rslave"] },
    { hostPath: "tmpfs", containerPath: "/scratch/", type: "tmpfs", options: ["size=1m"] },
  ],
  hooks: [
    { name: "createRuntime", path: "/bin/one", args: ["one"], env: [] },
    { name: "poststop", path: "/bin/two", args: [], env: ["X=1"], timeoutSec: 3 },
    { name: "createRuntime", path: "/bin/three", args: [], env: [] },
  ],
  additionalGids: [44, 0],
  intelRdt: { closID: "gpu" },
};

const user = { uid: 1000, gid: 1001, additionalGids: [0, 1001], home: "/" };

/** The spec of a container whose CDI devices make these edits. */
function specWith(cdi: CdiEdits) {
  const config = withCdi({ ...container, env: [{ key: "A", value: "own" }], mounts: [hostMount("/data")] }, cdi);
  const devices = withCdiNodes([deviceNode("/dev/a", 1), deviceNode("/dev/c", 2)], cdi, user);
  return buildOciSpec(specInput({ container: config, input: { cdi, devices, user: withCdiGroups(user, cdi) } }));
}

suite("what CDI devices change in a container", () => {
  test("environment and mounts come after the container's own", () => {
    const spec = specWith(edits);
    assert.deepEqual(
      spec.process.env.filter((line) => /^[AB]=/.test(line)),
      ["A=device", "B=x=y"],
    );
    assert.deepEqual(
      spec.mounts.filter(({ destination }) => destination === "/opt/gpu" || destination === "/scratch"),
      [
        { destination: "/scratch", type: "tmpfs", source: "tmpfs", options: ["size=1m"] },
        { destination: "/opt/gpu", type: "bind", source: "/lib/gpu", options: ["rbind", "rslave", "ro", "nosuid"] },
      ],
    );
    assert.equal(spec.linux.rootfsPropagation, "rslave", "or the mount would receive nothing");
  });

  test("a node replaces one at the same path; one without an owner is the user's; the cgroup lets each through", () => {
    const { devices, resources } = specWith(edits).linux;
    assert.deepEqual(
      devices?.map(({ path, major, minor, uid, gid }) => [path, major, minor, uid, gid]),
      [
        ["/dev/a", 5, 6, 9, 1001],
        ["/dev/c", 10, 2, 0, 0],
        ["/dev/b", 7, 8, 1000, 1001],
      ],
    );
    assert.deepEqual(resources.devices?.[1], { allow: true, type: "c", major: 5, minor: 6, access: "r" });
    assert.deepEqual(resources.devices?.at(-1), { allow: true, type: "b", major: 7, minor: 8, access: "rw" });
  });

  test("groups, hooks by their moment, and the share of the cache", () => {
    const spec = specWith(edits);
    assert.deepEqual(spec.process.user.additionalGids, [0, 1001, 44]);
    assert.deepEqual(spec.hooks, {
      createRuntime: [
        { path: "/bin/one", args: ["one"], env: [] },
        { path: "/bin/three", args: [], env: [] },
      ],
      poststop: [{ path: "/bin/two", args: [], env: ["X=1"], timeout: 3 }],
    });
    assert.deepEqual(spec.linux.intelRdt, { closID: "gpu" });
  });

  test("no device changes nothing", () => {
    assert.equal(withCdi(container, undefined), container);
    const spec = buildOciSpec(specInput());
    assert.ok(!("hooks" in spec) && !("intelRdt" in spec.linux));
  });
});
