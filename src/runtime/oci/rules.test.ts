import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RuntimeError } from "../errors.ts";
import { CAPABILITIES, ociCapabilities } from "./capabilities.ts";
import { ociResources } from "./linux.ts";
import { buildOciSpec } from "./spec.ts";
import { deviceNode, hostFacts, hostMount, type InputChanges, podNetworking, specInput } from "./test-input.ts";
import type { OciSpec } from "./types.ts";

function specOf(changes: InputChanges): OciSpec {
  return buildOciSpec(specInput(changes));
}

function refused(field: string, changes: InputChanges): void {
  assert.throws(
    () => specOf(changes),
    (error) => error instanceof RuntimeError && error.fact.code === "ERR_INVALID" && error.fact.field === field,
  );
}

describe("command", () => {
  const cases: [command: string[], args: string[], entrypoint: string[], cmd: string[], expected: string[]][] = [
    [["c"], ["a"], ["e"], ["d"], ["c", "a"]],
    [["c"], [], ["e"], ["d"], ["c"]],
    [[], ["a"], ["e"], ["d"], ["e", "a"]],
    [[], [], ["e"], ["d"], ["e", "d"]],
    [[], ["a"], [], ["d"], ["a"]],
    [[], [], [], ["d"], ["d"]],
  ];
  for (const [command, args, entrypoint, cmd, expected] of cases) {
    it(`${JSON.stringify([command, args, entrypoint, cmd])} runs ${expected.join(" ")}`, () => {
      assert.deepEqual(specOf({ container: { command, args }, image: { entrypoint, cmd } }).process.args, expected);
    });
  }

  it("is refused when nothing is left", () => refused("config.command", { image: { entrypoint: [], cmd: [] } }));
});

describe("environment", () => {
  it("takes defaults, the image's, then the container's, each name once and in its first place", () => {
    const env = [
      { key: "NGINX_VERSION", value: "2" },
      { key: "A", value: "b=c" },
      { key: "A", value: "" },
    ];
    assert.deepEqual(specOf({ container: { env, tty: true } }).process.env, [
      "PATH=/image/bin",
      "TERM=xterm",
      "HOSTNAME=web",
      "NGINX_VERSION=2",
      "A=",
      "HOME=/root",
    ]);
  });

  it("has a PATH without the image's, and keeps the HOME it is given", () => {
    const { env } = specOf({ image: { env: [] }, container: { env: [{ key: "HOME", value: "/h" }] } }).process;
    assert.deepEqual(env, ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=web", "HOME=/h"]);
  });

  it("refuses a value that is not UTF-8", () => refused("config.envs[0].value", { container: { env: [{ key: "A", base64: "/w==" }] } }));
});

describe("working directory", () => {
  const cases: [config: string, image: string, expected: string][] = [
    ["", "", "/"],
    ["", "/srv", "/srv"],
    ["/a//b/", "/srv", "/a/b"],
    ["", "rel/ative", "/rel/ative"],
    ["", "../..", "/"],
  ];
  for (const [workingDir, ofImage, expected] of cases) {
    it(`${workingDir}|${ofImage} is ${expected}`, () => {
      assert.equal(specOf({ container: { workingDir }, image: { workingDir: ofImage } }).process.cwd, expected);
    });
  }
});

describe("capabilities", () => {
  function changed(add: string[], drop: string[], addAmbient: string[] = [], available = CAPABILITIES) {
    return ociCapabilities({ privileged: false, capabilities: { add, drop, addAmbient } }, available);
  }

  it("are fourteen by default, none inheritable or ambient", () => {
    const { bounding, effective, permitted, inheritable, ambient } = changed([], []);
    assert.equal(bounding.length, 14);
    assert.deepEqual([effective, permitted, inheritable, ambient], [bounding, bounding, [], []]);
  });

  it("apply ALL before single names", () => {
    assert.deepEqual(changed(["CAP_KILL"], ["ALL"]).bounding, ["CAP_KILL"]);
    assert.deepEqual(
      changed(["ALL"], ["CAP_KILL"]).bounding,
      CAPABILITIES.filter((name) => name !== "CAP_KILL"),
    );
    assert.deepEqual(changed(["ALL", "CAP_KILL"], ["ALL"]).bounding, ["CAP_KILL"]);
  });

  it("that are ambient are in every set", () => {
    const sets = changed([], ["ALL"], ["CAP_NET_BIND_SERVICE"]);
    for (const set of Object.values(sets)) assert.deepEqual(set, ["CAP_NET_BIND_SERVICE"]);
  });

  it("are never more than the daemon has", () => {
    assert.deepEqual(changed(["ALL"], [], [], ["CAP_KILL"]).bounding, ["CAP_KILL"]);
    assert.deepEqual(changed([], [], [], ["CAP_KILL"]).bounding, ["CAP_KILL"]);
    assert.throws(() => changed(["CAP_BPF"], [], [], ["CAP_KILL"]), /CAP_BPF/);
  });

  it("are all of them when privileged, whatever is dropped", () => {
    const all = ociCapabilities({ privileged: true, capabilities: { add: [], drop: ["ALL"], addAmbient: [] } }, CAPABILITIES);
    assert.deepEqual(all.bounding, CAPABILITIES);
  });
});

describe("mounts", () => {
  function destinations(changes: InputChanges): string[] {
    return specOf(changes).mounts.map(({ destination }) => destination);
  }

  it("of the client replace ours at the same path, however it is written", () => {
    const { mounts } = specOf({ container: { mounts: [hostMount("/etc//hosts/"), hostMount("/proc")] } });
    assert.equal(mounts.find(({ destination }) => destination === "/etc/hosts")?.source, "/host/etc//hosts/");
    assert.equal(mounts.find(({ destination }) => destination === "/proc")?.type, "bind");
  });

  it("at /dev replace everything of ours below it, device nodes too", () => {
    const changes = { container: { mounts: [hostMount("/dev/")] }, input: { devices: [deviceNode("/dev/fuse", 229)] } };
    assert.deepEqual(
      destinations(changes).filter((path) => path.startsWith("/dev")),
      ["/dev"],
    );
    assert.equal(specOf(changes).linux.devices, undefined);
    assert.equal(specOf(changes).linux.resources.devices?.length, 2);
  });

  it("keep what the client mounts below its own /dev", () => {
    assert.ok(destinations({ container: { mounts: [hostMount("/dev/shm"), hostMount("/dev")] } }).includes("/dev/shm"));
  });

  const propagations = [
    ["private", "rprivate", "rprivate"],
    ["host-to-container", "rslave", "rslave"],
    ["bidirectional", "rshared", "rshared"],
  ] as const;
  for (const [propagation, option, root] of propagations) {
    it(`${propagation} is ${option}, and the root ${root}`, () => {
      const { mounts, linux } = specOf({ container: { mounts: [hostMount("/a"), hostMount("/data", { propagation })] } });
      assert.deepEqual(mounts.find(({ destination }) => destination === "/data")?.options, ["rbind", option, "rw"]);
      assert.equal(linux.rootfsPropagation, root);
    });
  }

  it("stay writable where their source is guarded, and their ids are left alone where they are mapped", () => {
    const ids = [{ containerId: 0, hostId: 1000, length: 10 }];
    const mounts = [hostMount("/data", { readonly: "yes", uidMappings: ids, gidMappings: ids })];
    const mountSources = [{ path: "/run/aurae/volumes/c-0", mapped: true, guarded: true }];
    const spec = specOf({ container: { mounts }, input: { mountSources } });
    assert.deepEqual(
      spec.mounts.find(({ destination }) => destination === "/data"),
      { destination: "/data", type: "bind", source: "/run/aurae/volumes/c-0", options: ["rbind", "rprivate", "rw"] },
    );
  });

  it("of kernel filesystems are read-only unless privileged", () => {
    const options = (changes: InputChanges) =>
      specOf(changes)
        .mounts.filter(({ destination }) => destination.startsWith("/sys"))
        .map((mount) => mount.options.at(-1));
    assert.deepEqual(options({}), ["ro", "ro"]);
    assert.deepEqual(options({ security: { privileged: true } }), ["rw", "rw"]);
  });

  it("bind /sys where a user namespace cannot mount its own", () => {
    const user = { uids: { containerId: 0, hostId: 1, length: 1 }, gids: { containerId: 0, hostId: 1, length: 1 } };
    const { mounts } = specOf({ sandbox: { namespaces: { ...podNetworking, network: "node", ipc: "node", user } } });
    assert.ok(mounts.find(({ destination }) => destination === "/sys")?.options.includes("rro"));
    assert.equal(mounts.find(({ destination }) => destination === "/dev/mqueue")?.type, "bind");
  });
});

describe("pid namespace", () => {
  const cases = [
    ["container", "container", undefined, [{ type: "pid" }]],
    ["pod", "pod", undefined, [{ type: "pid", path: "/ns/pid" }]],
    ["node", "node", undefined, []],
    ["container", "target", "/proc/7/ns/pid", [{ type: "pid", path: "/proc/7/ns/pid" }]],
    ["container", "pod", undefined, [{ type: "pid" }]],
    ["node", "pod", undefined, []],
  ] as const;
  for (const [ofSandbox, ofContainer, targetPidPath, expected] of cases) {
    it(`sandbox ${ofSandbox}, container ${ofContainer}`, () => {
      const namespaces = { network: "/ns/net", ipc: "/ns/ipc", uts: "/ns/uts", pid: ofSandbox === "pod" ? "/ns/pid" : "", user: "" };
      const { linux } = specOf({
        sandbox: { namespaces: { ...podNetworking, pid: ofSandbox } },
        security: { namespaces: { ...podNetworking, pid: ofContainer } },
        input: { namespaces, targetPidPath },
      });
      assert.deepEqual(
        linux.namespaces.filter(({ type }) => type === "pid"),
        expected,
      );
    });
  }
});

describe("cgroup namespace", () => {
  const cases = [
    [1, false, 0],
    [2, false, 1],
    [2, true, 0],
  ] as const;
  for (const [cgroupVersion, privileged, count] of cases) {
    it(`v${cgroupVersion}, privileged ${privileged}: ${count}`, () => {
      const { namespaces } = specOf({ host: { cgroupVersion }, security: { privileged } }).linux;
      assert.equal(namespaces.filter(({ type }) => type === "cgroup").length, count);
    });
  }
});

describe("resources", () => {
  it("write what is present and nothing else", () => {
    assert.deepEqual(ociResources({}, hostFacts), {});
    assert.deepEqual(ociResources({ cpuQuotaUs: -1 }, hostFacts), { cpu: { quota: -1 } });
  });

  it("forbid swap on top of a memory limit, where swap can be limited", () => {
    assert.deepEqual(ociResources({ memoryLimitBytes: 5 }, hostFacts).memory, { limit: 5, swap: 5 });
    assert.deepEqual(ociResources({ memoryLimitBytes: 5, memorySwapLimitBytes: 9 }, hostFacts).memory, { limit: 5, swap: 9 });
    assert.deepEqual(ociResources({ memoryLimitBytes: 5 }, { ...hostFacts, swapAccounting: false }).memory, { limit: 5 });
  });

  it("leave out a huge page size of zero that the node cannot limit, and refuse more", () => {
    const hugepageLimits = [{ pageSize: "1GB", limitBytes: 0 }];
    assert.deepEqual(ociResources({ hugepageLimits }, hostFacts), {});
    assert.throws(() => ociResources({ hugepageLimits: [{ pageSize: "1GB", limitBytes: 1 }] }, hostFacts), /1GB.*use one of 2MB/);
  });

  it("refuse unified keys on cgroup v1", () => {
    assert.throws(() => ociResources({ unified: { a: "b" } }, { ...hostFacts, cgroupVersion: 1 }), /cgroup v2/);
  });

  it("write an OOM score always, raised to what the daemon may give", () => {
    assert.equal(specOf({}).process.oomScoreAdj, 0);
    assert.equal(specOf({ container: { resources: { oomScoreAdj: -998 } } }).process.oomScoreAdj, -998);
    assert.equal(specOf({ container: { resources: { oomScoreAdj: -998 } }, host: { oomScoreAdjFloor: -5 } }).process.oomScoreAdj, -5);
  });
});

describe("AppArmor", () => {
  const host = { apparmor: { defaultProfile: "def" } };
  const cases = [
    [{ type: "none" }, false, "def"],
    [{ type: "runtime-default" }, false, "def"],
    [{ type: "unconfined" }, false, undefined],
    [{ type: "localhost", reference: "mine" }, false, "mine"],
    [{ type: "localhost", reference: "mine" }, true, undefined],
    [{ type: "none" }, true, undefined],
  ] as const;
  for (const [apparmor, privileged, expected] of cases) {
    it(`${JSON.stringify(apparmor)}, privileged ${privileged}: ${expected}`, () => {
      assert.equal(specOf({ host, security: { apparmor, privileged } }).process.apparmorProfile, expected);
    });
  }

  it("that is asked for on a kernel without it is refused", () => {
    assert.equal(specOf({}).process.apparmorProfile, undefined);
    refused("config.linux.security_context.apparmor", { security: { apparmor: { type: "runtime-default" } } });
  });
});
