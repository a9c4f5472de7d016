import assert from "node:assert/strict";
import { suite, test } from "node:test";

import type { MountSourceFacts } from "../../host/mount-source.ts";
import type { ContainerConfig, MountPropagation, MountRequest } from "../container-config.ts";
import { container } from "../oci/test-input.ts";
import type { CdiEdits } from "../ports.ts";
import { type LateRefusal, lateRefusal } from "./late-refusal.ts";

function mount(path: string, propagation: MountPropagation = "private"): MountRequest {
  return {
    containerPath: "/x",
    source: { type: "host", path },
    readonly: "no",
    propagation,
    selinuxRelabel: false,
    options: [],
    uidMappings: [],
    gidMappings: [],
  };
}

function at(path: string, kind: MountSourceFacts["kind"] = "directory", fsType = "ext4"): MountSourceFacts {
  return { path, kind, fsType };
}

const NODE = { network: "pod", pid: "container", ipc: "pod", targetId: "", user: undefined } as const;

interface Case {
  readonly id: string;
  readonly config: Partial<ContainerConfig>;
  readonly sources?: readonly (MountSourceFacts | undefined)[];
  readonly cdi?: CdiEdits;
  /** Undefined: it can run in a microVM. */
  readonly want: readonly [reason: LateRefusal["reason"], field: string] | undefined;
}

function source(path: string, facts: MountSourceFacts | undefined, want: Case["want"], id = path): Case {
  return { id, config: { mounts: [mount(path)] }, sources: [facts], want };
}

const noEdits: CdiEdits = { env: [], deviceNodes: [], mounts: [], hooks: [], additionalGids: [] };

const FIELD = "config.mounts[0].host_path";

const CASES: readonly Case[] = [
  { id: "nothing asked for", config: {}, want: undefined },
  {
    id: "shared propagation",
    config: { mounts: [mount("/data"), mount("/data", "bidirectional")] },
    sources: [at("/data"), at("/data")],
    want: ["MountPropagation", "config.mounts[1].propagation"],
  },
  {
    id: "received propagation",
    config: { mounts: [mount("/data", "host-to-container")] },
    sources: [at("/data")],
    want: ["MountPropagation", "config.mounts[0].propagation"],
  },
  {
    id: "a device",
    config: {
      devices: [
        { hostPath: "/dev/fuse", containerPath: "/dev/fuse", permissions: "rwm" },
        { hostPath: "/dev/sda", containerPath: "/dev/sda", permissions: "rwm" },
      ],
    },
    want: ["HostDevice", "config.devices[1].host_path"],
  },
  {
    id: "a device that the guest has too",
    config: { devices: [{ hostPath: "/dev/fuse", containerPath: "/dev/fuse", permissions: "rwm" }] },
    want: undefined,
  },
  { id: "a CDI device of files and variables", config: { cdiDevices: ["v/c=d"] }, cdi: noEdits, want: undefined },
  {
    id: "a CDI device with a node",
    config: { cdiDevices: ["v/c=d"] },
    cdi: {
      ...noEdits,
      deviceNodes: [{ containerPath: "/dev/x", hostPath: "/dev/gpu0", type: "c", major: 1, minor: 2, fileMode: 0o600, permissions: "rw" }],
    },
    want: ["HostDevice", "config.CDI_devices"],
  },
  {
    id: "a CDI device with a hook",
    config: { cdiDevices: ["v/c=d"] },
    cdi: { ...noEdits, hooks: [{ name: "createContainer", path: "/usr/bin/hook", args: [], env: [] }] },
    want: ["HostDevice", "config.CDI_devices"],
  },
  {
    id: "a CDI device with a share of the cache",
    config: { cdiDevices: ["v/c=d"] },
    cdi: { ...noEdits, intelRdt: {} },
    want: ["HostDevice", "config.CDI_devices"],
  },
  ...(["network", "pid", "ipc"] as const).map(
    (name): Case => ({
      id: `host ${name}`,
      config: { security: { ...container.security, namespaces: { ...NODE, [name]: "node" } } },
      want: ["HostNamespace", `config.linux.security_context.namespace_options.${name}`],
    }),
  ),
  source("/data", at("/data"), undefined),
  source("/data/file", at("/data/file", "file"), undefined),
  source("/not/there", undefined, undefined),
  source("/data/x.sock", at("/data/x.sock", "socket"), ["HostSocket", FIELD]),
  source("/data/pipe", at("/data/pipe", "fifo"), ["HostSocket", FIELD]),
  source("/data/disk", at("/data/disk", "block-device"), ["HostDevice", FIELD]),
  source("/data/tty", at("/data/tty", "char-device"), ["HostDevice", FIELD]),
  source("/dev", at("/dev", "directory", "devtmpfs"), ["HostKernel", FIELD]),
  source("/dev/shm/x", at("/dev/shm/x", "directory", "tmpfs"), ["HostKernel", FIELD]),
  source("/proc/sys/net", at("/proc/sys/net", "directory", "proc"), ["HostKernel", FIELD]),
  source("/sys/fs/cgroup", at("/sys/fs/cgroup", "directory", "tmpfs"), ["HostKernel", FIELD]),
  source("/", at("/"), ["HostKernel", FIELD]),
  source("//sys/../sys/", undefined, ["HostKernel", FIELD]),
  source("/mnt/bpf", at("/mnt/bpf", "directory", "bpf"), ["HostKernel", FIELD]),
  source("/mnt/huge", at("/mnt/huge", "directory", "hugetlbfs"), ["HostKernel", FIELD]),
  source("/data/link", at("/proc/1"), ["HostKernel", FIELD], "a link into /proc"),
  source("/devices", at("/devices"), undefined),
  source("/system", at("/system"), undefined),
  ...["plugins", "plugins_registry", "device-plugins", "pod-resources"].map((name) =>
    source(`/var/lib/kubelet/${name}/x`, at(`/var/lib/kubelet/${name}/x`), ["NodeService", FIELD]),
  ),
  source("/var/lib/kubelet", at("/var/lib/kubelet"), ["NodeService", FIELD]),
  source("/var/lib/kubelet/pods/uid/volumes/x", at("/var/lib/kubelet/pods/uid/volumes/x"), undefined),
  source("/var/lib/kubelet/plugins-old", at("/var/lib/kubelet/plugins-old"), undefined),
  source("/run/containerd/containerd.sock", at("/run/containerd/containerd.sock", "socket"), ["NodeService", FIELD]),
  source("/var/run/docker.sock", undefined, ["NodeService", FIELD]),
  source("/var/run", at("/run", "directory", "tmpfs"), ["NodeService", FIELD]),
  source("/run/secrets", at("/run/secrets", "directory", "tmpfs"), undefined),
  {
    id: "an image volume",
    config: { mounts: [{ ...mount("/x"), source: { type: "image", image: "i", subPath: "" } }] },
    sources: [undefined],
    want: undefined,
  },
];

suite("what a microVM cannot give a container", () => {
  for (const { id, config, sources = [], cdi, want } of CASES) {
    test(id, () => {
      const refusal = lateRefusal({ ...container, ...config }, sources, cdi);
      assert.deepEqual(refusal === undefined ? undefined : [refusal.reason, refusal.field], want);
      if (refusal !== undefined) assert.ok(refusal.message.startsWith(`${refusal.field}: `), refusal.message);
    });
  }

  test("a path in the message is bounded and escaped", () => {
    const path = `/dev/${"x".repeat(5000)}\n`;
    const refusal = lateRefusal({ ...container, mounts: [mount(path)] }, [undefined]);
    assert.ok(refusal !== undefined && refusal.message.length < 600 && !refusal.message.includes("\n"));
  });
});
