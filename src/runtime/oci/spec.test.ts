import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";

import { buildOciSpec } from "./spec.ts";
import { deviceNode, hostMount, type InputChanges, podNetworking, specInput } from "./test-input.ts";

const GOLDEN = join(import.meta.dirname, "golden");
// `node src/runtime/oci/spec.test.ts --update-golden`, then `make fmt`; a run of the tests never writes.
const update = process.argv.includes("--update-golden");

const userNamespace = {
  uids: { containerId: 0, hostId: 65_536, length: 65_536 },
  gids: { containerId: 0, hostId: 65_536, length: 65_536 },
};

const goldens: { readonly [name: string]: InputChanges } = {
  plain: {},
  "runtime-default": {
    security: {
      seccomp: { type: "runtime-default" },
      apparmor: { type: "runtime-default" },
      noNewPrivs: true,
      readonlyRootfs: true,
      capabilities: { add: ["CAP_NET_ADMIN"], drop: ["CAP_NET_RAW"], addAmbient: [] },
      maskedPaths: ["/proc/kcore"],
      readonlyPaths: ["/proc/sys"],
    },
    host: { apparmor: { defaultProfile: "aurae-default" } },
  },
  privileged: {
    sandbox: { privileged: true },
    security: { privileged: true, seccomp: { type: "runtime-default" }, maskedPaths: ["/proc/kcore"], readonlyPaths: ["/proc/sys"] },
    input: { devices: [deviceNode("/dev/mine", 1)], hostDevices: [deviceNode("/dev/kvm", 232), deviceNode("/dev/mine", 9)] },
  },
  "host-namespaces": {
    sandbox: { namespaces: { ...podNetworking, network: "node", pid: "node", ipc: "node" } },
    security: { namespaces: { ...podNetworking, network: "node", pid: "node", ipc: "node" } },
    input: { namespaces: { network: "", ipc: "", uts: "", pid: "", user: "" }, hostname: "node-1" },
  },
  mounts: {
    container: {
      mounts: [
        hostMount("/data/deep/er", { propagation: "bidirectional" }),
        hostMount("/data", { propagation: "host-to-container", readonly: "yes", options: ["noexec"] }),
        hostMount("/etc/hosts"),
        hostMount("/secret", { readonly: "recursive" }),
        hostMount("/volume", { readonly: "yes", source: { type: "image", image: "sha256:2", subPath: "sub" } }),
      ],
    },
    image: { volumes: ["/cache", "/data"] },
    input: {
      imageVolumes: [
        { containerPath: "/cache", sourcePath: "/scratch/volumes/0" },
        { containerPath: "/data/", sourcePath: "/scratch/volumes/1" },
      ],
    },
  },
  "user-namespace": {
    sandbox: { namespaces: { ...podNetworking, user: userNamespace } },
    container: { mounts: [hostMount("/data", { uidMappings: [userNamespace.uids], gidMappings: [userNamespace.gids] })] },
    input: { namespaces: { network: "/ns/net", ipc: "/ns/ipc", uts: "/ns/uts", pid: "", user: "/ns/user" } },
  },
  resources: {
    container: {
      resources: {
        cpuPeriodUs: 100_000,
        cpuQuotaUs: 50_000,
        cpuShares: 512,
        cpusetCpus: "0-1",
        cpusetMems: "0",
        memoryLimitBytes: 64 * 1024 * 1024,
        oomScoreAdj: 900,
        hugepageLimits: [
          { pageSize: "2MB", limitBytes: 0 },
          { pageSize: "1GB", limitBytes: 0 },
        ],
        unified: { "memory.high": "60000000" },
      },
    },
    input: { devices: [deviceNode("/dev/fuse", 229)] },
    host: { rlimits: [{ type: "RLIMIT_NOFILE", soft: 1024, hard: 1_048_576 }] },
  },
};

describe("golden specs", () => {
  for (const [name, changes] of Object.entries(goldens)) {
    it(name, () => {
      const spec = buildOciSpec(specInput(changes));
      const file = join(GOLDEN, `${name}.json`);
      if (update) writeFileSync(file, `${JSON.stringify(spec, undefined, 2)}\n`);
      assert.ok(existsSync(file), `${file} is missing: make it with --update-golden`);
      // Through JSON, so that the order of keys counts and absent is not the same as undefined.
      const golden: unknown = JSON.parse(readFileSync(file, "utf8"));
      assert.equal(JSON.stringify(spec, undefined, 2), JSON.stringify(golden, undefined, 2));
    });
  }

  it("has no file without a case", () => {
    assert.deepEqual(
      readdirSync(GOLDEN).sort(),
      Object.keys(goldens)
        .map((name) => `${name}.json`)
        .sort(),
    );
  });
});

describe("every spec", () => {
  for (const [name, changes] of Object.entries(goldens)) {
    it(`${name}: holds no label, annotation or sysctl`, () => {
      assert.doesNotMatch(JSON.stringify(buildOciSpec(specInput(changes))), /leak-/);
    });

    it(`${name}: comes out the same twice and leaves its input alone`, () => {
      const input = deepFreeze(specInput(changes));
      assert.equal(JSON.stringify(buildOciSpec(input)), JSON.stringify(buildOciSpec(structuredClone(input))));
    });

    it(`${name}: mounts parents before children, one per path, all absolute`, () => {
      const destinations = buildOciSpec(specInput(changes)).mounts.map(({ destination }) => destination);
      assert.equal(new Set(destinations).size, destinations.length);
      for (const [index, destination] of destinations.entries()) {
        assert.ok(destination.startsWith("/"));
        assert.ok(!destinations.slice(index + 1).some((later) => destination.startsWith(`${later}/`)), destination);
      }
    });

    it(`${name}: never writes noNewPrivileges as false`, () => {
      assert.doesNotMatch(JSON.stringify(buildOciSpec(specInput(changes))), /"noNewPrivileges":false/);
    });
  }
});

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null) Object.values(Object.freeze(value)).forEach(deepFreeze);
  return value;
}
