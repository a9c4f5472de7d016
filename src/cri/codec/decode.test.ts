import assert from "node:assert/strict";
import { describe, it } from "node:test";

import {
  ContainerConfig as CriContainer,
  PodSandboxConfig as CriSandbox,
  type DeepPartial,
  type LinuxContainerResources,
  type LinuxContainerSecurityContext,
  type LinuxSandboxSecurityContext,
  type Mount,
  Signal,
} from "../../../api/gen/cri/v1/api.ts";
import type { ContainerConfig } from "../../runtime/container-config.ts";
import type { SandboxConfig } from "../../runtime/sandbox-config.ts";
import { InvalidArgumentError } from "../errors.ts";
import { decodeContainerConfig } from "./container-config.ts";
import { decodeSandboxConfig } from "./sandbox-config.ts";

const metadata = { name: "web", uid: "u-1", namespace: "default", attempt: 1 };

// Both go over the wire first: only then is a message what a client can send.
function sandbox(config: DeepPartial<CriSandbox>): SandboxConfig {
  return decodeSandboxConfig(CriSandbox.decode(CriSandbox.encode(CriSandbox.fromPartial({ metadata, ...config })).finish()));
}

function container(config: DeepPartial<CriContainer>): ContainerConfig {
  const whole = { metadata: { name: "c", attempt: 0 }, image: { image: "sha256:1" }, ...config };
  return decodeContainerConfig(CriContainer.decode(CriContainer.encode(CriContainer.fromPartial(whole)).finish()));
}

function refused(field: string, decode: () => unknown): void {
  assert.throws(decode, (error) => {
    assert.ok(error instanceof InvalidArgumentError, String(error));
    assert.equal(error.fact.field, field);
    assert.ok(error.message.length > field.length + 10, error.message);
    return true;
  });
}

/** A value that the schema's types rule out but the wire can carry. */
function unknownEnum(value: number): never {
  return value as never;
}

const SECURITY = "config.linux.security_context";
const line = { containerId: 0, hostId: 65_536, length: 65_536 };

describe("a sandbox", () => {
  it("of nothing but its name shares everything in the pod and has no limits", () => {
    assert.deepEqual(sandbox({}), {
      metadata,
      hostname: "",
      logDirectory: "",
      dns: undefined,
      portMappings: [],
      labels: {},
      annotations: {},
      cgroupParent: "",
      sysctls: {},
      namespaces: { network: "pod", pid: "pod", ipc: "pod", targetId: "", user: undefined },
      privileged: false,
      seccomp: { type: "none" },
      apparmor: { type: "none" },
      selinux: undefined,
      runAsUser: undefined,
      runAsGroup: undefined,
      supplementalGroups: [],
      supplementalGroupsPolicy: "merge",
      readonlyRootfs: false,
      overhead: undefined,
      resources: undefined,
    });
  });

  it("keeps what it is given, in a form that JSON keeps too", () => {
    const config = sandbox({
      hostname: "web",
      logDirectory: "/var/log/pods/web",
      dnsConfig: { servers: ["10.0.0.1"], searches: ["a"], options: ["ndots:5"] },
      portMappings: [{ protocol: 2, containerPort: 80, hostPort: 8080, hostIp: "::1" }],
      labels: { b: "2", a: "1" },
      linux: {
        cgroupParent: "/kubepods",
        sysctls: { "net.core.somaxconn": "1024" },
        overhead: { memoryLimitInBytes: 5n },
        securityContext: {
          privileged: true,
          runAsUser: { value: 0n },
          runAsGroup: { value: 7n },
          seccomp: { profileType: 2, localhostRef: "/p.json" },
          namespaceOptions: { network: 0, pid: 1, ipc: 2, usernsOptions: { mode: 0, uids: [line], gids: [line] } },
        },
      },
    });
    assert.deepEqual(JSON.parse(JSON.stringify(config)), stripUndefined(config));
    assert.deepEqual(config.namespaces, { network: "pod", pid: "container", ipc: "node", targetId: "", user: { uids: line, gids: line } });
    assert.deepEqual(config.portMappings, [{ protocol: "sctp", containerPort: 80, hostPort: 8080, hostIp: "::1" }]);
    assert.deepEqual([config.runAsUser, config.runAsGroup, config.overhead], [0, 7, { memoryLimitBytes: 5 }]);
    assert.equal(JSON.stringify(config.labels), '{"a":"1","b":"2"}');
  });

  it("tells an absent DNS configuration from an empty one", () => {
    assert.deepEqual(sandbox({ dnsConfig: {} }).dns, { servers: [], searches: [], options: [] });
  });

  const inContext = (context: DeepPartial<LinuxSandboxSecurityContext>): DeepPartial<CriSandbox> => ({
    linux: { securityContext: context },
  });
  const userns = (usernsOptions: object) => inContext({ namespaceOptions: { usernsOptions } });
  const bad: readonly (readonly [field: string, config: DeepPartial<CriSandbox>])[] = [
    ["config.metadata", { metadata: undefined }],
    ["config.metadata.name", { metadata: { ...metadata, name: "" } }],
    ["config.metadata.uid", { metadata: { ...metadata, uid: "" } }],
    ["config.metadata.namespace", { metadata: { ...metadata, namespace: "" } }],
    ["config.log_directory", { logDirectory: "logs" }],
    ["config.windows", { windows: {} }],
    ["config.port_mappings[0].protocol", { portMappings: [{ protocol: unknownEnum(9) }] }],
    ["config.port_mappings[0].host_port", { portMappings: [{ hostPort: 65_536 }] }],
    ["config.port_mappings[0].container_port", { portMappings: [{ hostPort: 80 }] }],
    ["config.port_mappings[0].host_ip", { portMappings: [{ hostIp: "localhost" }] }],
    ["config.linux.sysctls", { linux: { sysctls: { "../x": "1" } } }],
    ["config.linux.sysctls[net.a]", { linux: { sysctls: { "net.a": "1\n2" } } }],
    ["config.linux.overhead.cpu_shares", { linux: { overhead: { cpuShares: -1n } } }],
    [`${SECURITY}.run_as_group`, inContext({ runAsGroup: { value: 1n } })],
    [`${SECURITY}.run_as_user`, inContext({ runAsUser: { value: -1n } })],
    [`${SECURITY}.run_as_user`, inContext({ runAsUser: { value: 2n ** 31n } })],
    [`${SECURITY}.supplemental_groups`, inContext({ supplementalGroups: [-1n] })],
    [`${SECURITY}.supplemental_groups_policy`, inContext({ supplementalGroupsPolicy: unknownEnum(2) })],
    [`${SECURITY}.namespace_options.network`, inContext({ namespaceOptions: { network: 1 } })],
    [`${SECURITY}.namespace_options.network`, inContext({ namespaceOptions: { network: unknownEnum(4) } })],
    [`${SECURITY}.namespace_options.ipc`, inContext({ namespaceOptions: { ipc: 3 } })],
    [`${SECURITY}.namespace_options.pid`, inContext({ namespaceOptions: { pid: 3, targetId: "abc" } })],
    [`${SECURITY}.namespace_options.userns_options.mode`, userns({ mode: 1, uids: [line], gids: [line] })],
    [`${SECURITY}.namespace_options.userns_options.mode`, userns({ mode: 3 })],
    [`${SECURITY}.namespace_options.userns_options`, userns({ mode: 2, uids: [line] })],
    [`${SECURITY}.namespace_options.userns_options.uids`, userns({ mode: 0 })],
    [`${SECURITY}.namespace_options.userns_options.uids`, userns({ mode: 0, uids: [line, line], gids: [line] })],
    [`${SECURITY}.namespace_options.userns_options.gids`, userns({ mode: 0, uids: [line] })],
    [`${SECURITY}.namespace_options.userns_options.uids.container_id`, userns({ uids: [{ ...line, containerId: 1 }], gids: [line] })],
    [`${SECURITY}.namespace_options.userns_options.gids.length`, userns({ uids: [line], gids: [{ ...line, length: 0 }] })],
    [`${SECURITY}.namespace_options.userns_options.gids.length`, userns({ uids: [line], gids: [{ ...line, length: 2 ** 32 - 1 }] })],
    [`${SECURITY}.seccomp.localhost_ref`, inContext({ seccomp: { profileType: 2 } })],
    [`${SECURITY}.seccomp.localhost_ref`, inContext({ seccomp: { profileType: 2, localhostRef: "p.json" } })],
    [`${SECURITY}.seccomp.localhost_ref`, inContext({ seccomp: { profileType: 0, localhostRef: "/p.json" } })],
    [`${SECURITY}.apparmor.profile_type`, inContext({ apparmor: { profileType: unknownEnum(3) } })],
    [`${SECURITY}.seccomp`, inContext({ seccompProfilePath: "strange" })],
  ];
  for (const [field, config] of bad) it(`refuses ${field}: ${show(config)}`, () => refused(field, () => sandbox(config)));

  it("has to be there", () => refused("config", () => decodeSandboxConfig(undefined)));
});

describe("a security profile", () => {
  const seccomp: readonly (readonly [context: DeepPartial<LinuxSandboxSecurityContext>, expected: object])[] = [
    [{}, { type: "none" }],
    [{ seccomp: {} }, { type: "runtime-default" }],
    [{ seccomp: { profileType: 1 } }, { type: "unconfined" }],
    [{ seccompProfilePath: "runtime/default" }, { type: "runtime-default" }],
    [{ seccompProfilePath: "docker/default" }, { type: "runtime-default" }],
    [{ seccompProfilePath: "unconfined" }, { type: "unconfined" }],
    [{ seccompProfilePath: "localhost//p.json" }, { type: "localhost", reference: "/p.json" }],
    [{ seccomp: { profileType: 1 }, seccompProfilePath: "runtime/default" }, { type: "unconfined" }],
  ];
  for (const [securityContext, expected] of seccomp) {
    it(show(securityContext), () => assert.deepEqual(sandbox({ linux: { securityContext } }).seccomp, expected));
  }
});

describe("a container", () => {
  it("keeps what it is given, in a form that JSON keeps too", () => {
    const config = container({
      image: { image: "sha256:1", userSpecifiedImage: "nginx" },
      command: ["/bin/sh"],
      envs: [
        { key: "TEXT", value: Buffer.from("é\u{feff}") },
        { key: "BYTES", value: Buffer.from([0xff, 0xfe]) },
      ],
      mounts: [
        { containerPath: "/a", hostPath: "/h", readonly: true, recursiveReadOnly: true, mountOptions: ["noexec"] },
        { containerPath: "/b", readonly: true, image: { image: "sha256:2" }, imageSubPath: "x/y" },
        { containerPath: "/c", hostPath: "/h", propagation: 1 },
      ],
      devices: [{ hostPath: "/dev/fuse" }],
      CDIDevices: [{ name: "vendor.example/class=gpu0" }],
      annotations: { "cdi.k8s.io/plugin_1": "vendor.example/class=gpu0,vendor.example/class=gpu1", "other/cdi.k8s.io": "no" },
      stopSignal: Signal.SIGNAL_SIGRTMINPLUS2,
    });
    assert.deepEqual(JSON.parse(JSON.stringify(config)), stripUndefined(config));
    assert.deepEqual(config.env, [
      { key: "TEXT", value: "é\u{feff}" },
      { key: "BYTES", base64: "//4=" },
    ]);
    assert.deepEqual(
      config.mounts.map(({ source, readonly, propagation }) => [source, readonly, propagation]),
      [
        [{ type: "host", path: "/h" }, "recursive", "private"],
        [{ type: "image", image: "sha256:2", subPath: "x/y" }, "yes", "private"],
        [{ type: "host", path: "/h" }, "no", "host-to-container"],
      ],
    );
    assert.deepEqual(config.devices, [{ containerPath: "/dev/fuse", hostPath: "/dev/fuse", permissions: "rwm" }]);
    assert.deepEqual(config.cdiDevices, ["vendor.example/class=gpu0", "vendor.example/class=gpu1"]);
    assert.deepEqual([config.userSpecifiedImage, config.stopSignal], ["nginx", 36]);
    assert.equal(container({}).userSpecifiedImage, "sha256:1");
  });

  const mount = (change: DeepPartial<Mount>) => ({ mounts: [{ containerPath: "/a", hostPath: "/h", ...change }] });
  const image = { image: "sha256:2" };
  const bad: readonly (readonly [field: string, config: DeepPartial<CriContainer>])[] = [
    ["config.metadata", { metadata: undefined }],
    ["config.metadata.name", { metadata: {} }],
    ["config.image.image", { image: undefined }],
    ["config.windows", { windows: {} }],
    ["config.command", { command: ["a\0b"] }],
    ["config.working_dir", { workingDir: "app" }],
    ["config.log_path", { logPath: "/etc/passwd" }],
    ["config.log_path", { logPath: "../other/0.log" }],
    ["config.envs[0].key", { envs: [{ key: "" }] }],
    ["config.envs[0].key", { envs: [{ key: "A=B" }] }],
    ["config.envs[0].value", { envs: [{ key: "A", value: Buffer.from([0]) }] }],
    ["config.stop_signal", { stopSignal: unknownEnum(99) }],
    ["config.CDI_devices[0].name", { CDIDevices: [{ name: "gpu0" }] }],
    ['config.annotations["cdi.k8s.io/x"]', { annotations: { "cdi.k8s.io/x": "v.example/c=d,gpu0" } }],
    ["config.devices[0].host_path", { devices: [{ containerPath: "/dev/x" }] }],
    ["config.devices[0].permissions", { devices: [{ hostPath: "/dev/x", permissions: "x" }] }],
    ["config.mounts[0].container_path", mount({ containerPath: "" })],
    ["config.mounts[0].container_path", mount({ containerPath: "a" })],
    ["config.mounts[0].container_path", mount({ containerPath: "/a/../.." })],
    ["config.mounts[0].host_path", mount({ hostPath: "" })],
    ["config.mounts[0].host_path", mount({ hostPath: "h" })],
    ["config.mounts[0].host_path", mount({ image, readonly: true })],
    ["config.mounts[0].readonly", mount({ image, hostPath: "" })],
    ["config.mounts[0].image_sub_path", mount({ imageSubPath: "x" })],
    ["config.mounts[0].image_sub_path", mount({ image, hostPath: "", readonly: true, imageSubPath: "x/../.." })],
    ["config.mounts[0].propagation", mount({ propagation: unknownEnum(3) })],
    ["config.mounts[0].propagation", mount({ image, hostPath: "", readonly: true, propagation: 2 })],
    ["config.mounts[0].recursive_read_only", mount({ recursiveReadOnly: true })],
    ["config.mounts[0].recursive_read_only", mount({ recursiveReadOnly: true, readonly: true, propagation: 1 })],
    ["config.mounts[0].mount_options", mount({ mountOptions: ["ro"] })],
  ];
  for (const [field, config] of bad) it(`refuses ${field}: ${show(config)}`, () => refused(field, () => container(config)));

  it("has to be there", () => refused("config", () => decodeContainerConfig(undefined)));
});

describe("a container's security", () => {
  const decode = (securityContext: DeepPartial<LinuxContainerSecurityContext>) => container({ linux: { securityContext } }).security;

  it("names capabilities one way", () => {
    const capabilities = {
      addCapabilities: ["net_admin", "CAP_KILL", "all"],
      dropCapabilities: ["Mknod"],
      addAmbientCapabilities: ["BPF"],
    };
    assert.deepEqual(decode({ capabilities }).capabilities, {
      add: ["CAP_NET_ADMIN", "CAP_KILL", "ALL"],
      drop: ["CAP_MKNOD"],
      addAmbient: ["CAP_BPF"],
    });
  });

  it("takes the uid before the name, and the name before the image", () => {
    const user = { runAsUser: { value: 5n }, runAsUsername: "bob", runAsGroup: { value: 6n } };
    assert.deepEqual(decode(user).user, { type: "uid", uid: 5, gid: 6 });
    assert.deepEqual(decode({ runAsUsername: "bob" }).user, { type: "username", username: "bob", gid: undefined });
    assert.deepEqual(decode({}).user, { type: "image", gid: undefined });
  });

  it("keeps the target of a pid namespace only where it is meant", () => {
    assert.equal(decode({ namespaceOptions: { pid: 3, targetId: "abc" } }).namespaces.targetId, "abc");
    assert.equal(decode({ namespaceOptions: { pid: 1, targetId: "abc" } }).namespaces.targetId, "");
  });

  const bad: readonly (readonly [field: string, context: DeepPartial<LinuxContainerSecurityContext>])[] = [
    ["run_as_group", { runAsGroup: { value: 1n } }],
    ["capabilities.add_capabilities", { capabilities: { addCapabilities: ["CAP_NONSENSE"] } }],
    ["capabilities.drop_capabilities", { capabilities: { dropCapabilities: [""] } }],
    ["namespace_options.target_id", { namespaceOptions: { pid: 3 } }],
    ["masked_paths", { maskedPaths: ["proc/kcore"] }],
    ["readonly_paths", { readonlyPaths: [""] }],
    ["apparmor.localhost_ref", { apparmor: { profileType: 2 } }],
    ["apparmor", { apparmorProfile: "mine" }],
  ];
  for (const [field, context] of bad)
    it(`refuses ${field}: ${show(context)}`, () => refused(`${SECURITY}.${field}`, () => decode(context)));
});

describe("resources", () => {
  const decode = (resources: DeepPartial<LinuxContainerResources>) => container({ linux: { resources } }).resources;

  const good: readonly (readonly [resources: DeepPartial<LinuxContainerResources>, expected: object])[] = [
    [{}, {}],
    [
      { cpuPeriod: 100_000n, cpuQuota: -1n, cpuShares: 2n },
      { cpuPeriodUs: 100_000, cpuQuotaUs: -1, cpuShares: 2 },
    ],
    [
      { memoryLimitInBytes: 10n, memorySwapLimitInBytes: 10n },
      { memoryLimitBytes: 10, memorySwapLimitBytes: 10 },
    ],
    [
      { memoryLimitInBytes: 10n, memorySwapLimitInBytes: -1n },
      { memoryLimitBytes: 10, memorySwapLimitBytes: -1 },
    ],
    [
      { oomScoreAdj: -1000n, cpusetCpus: "0-2,4", cpusetMems: "0" },
      { oomScoreAdj: -1000, cpusetCpus: "0-2,4", cpusetMems: "0" },
    ],
    [{ hugepageLimits: [{ pageSize: "2MB", limit: 0n }] }, { hugepageLimits: [{ pageSize: "2MB", limitBytes: 0 }] }],
    [{ unified: { "memory.high": "5", "hugetlb.2MB.max": "0" } }, { unified: { "hugetlb.2MB.max": "0", "memory.high": "5" } }],
  ];
  for (const [resources, expected] of good) it(show(resources), () => assert.deepEqual(decode(resources), expected));

  const bad: readonly (readonly [field: string, resources: DeepPartial<LinuxContainerResources>])[] = [
    ["cpu_period", { cpuPeriod: -1n }],
    ["cpu_quota", { cpuQuota: -2n }],
    ["memory_limit_in_bytes", { memoryLimitInBytes: 2n ** 60n }],
    ["memory_swap_limit_in_bytes", { memoryLimitInBytes: 10n, memorySwapLimitInBytes: 9n }],
    ["oom_score_adj", { oomScoreAdj: 1001n }],
    ["cpuset_cpus", { cpusetCpus: "all" }],
    ["hugepage_limits.page_size", { hugepageLimits: [{ pageSize: "2M" }] }],
    ["unified", { unified: { "../../cgroup.procs": "1" } }],
  ];
  for (const [field, resources] of bad) {
    it(`refuses ${field}: ${show(resources)}`, () => refused(`config.linux.resources.${field}`, () => decode(resources)));
  }
});

function show(value: object): string {
  return JSON.stringify(value, (_key, member: unknown) => (typeof member === "bigint" ? String(member) : member));
}

/** JSON drops undefined members, and deepEqual tells the two apart. */
function stripUndefined(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(stripUndefined);
  if (typeof value !== "object" || value === null) return value;
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return Object.fromEntries(members.map(([key, member]) => [key, stripUndefined(member)]));
}
