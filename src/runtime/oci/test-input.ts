import type { DeviceNode } from "../../host/devices.ts";
import type { ContainerConfig, MountRequest } from "../container-config.ts";
import type { ImageConfig } from "../ports.ts";
import type { SandboxConfig } from "../sandbox-config.ts";
import { CAPABILITIES } from "./capabilities.ts";
import type { HostFacts, OciSpecInput } from "./input.ts";

// A small pod with one container for the tests of the spec builder; each part may be overridden.

export const podNetworking = { network: "pod", pid: "container", ipc: "pod", targetId: "", user: undefined } as const;

export const hostFacts: HostFacts = {
  arch: "x64",
  cgroupVersion: 2,
  swapAccounting: true,
  hugepageSizes: ["2MB"],
  seccomp: true,
  apparmor: undefined,
  capabilities: CAPABILITIES,
  oomScoreAdjFloor: -1000,
  rlimits: [],
};

export const sandbox: SandboxConfig = {
  metadata: { name: "web", uid: "u-1", namespace: "default", attempt: 0 },
  hostname: "web",
  logDirectory: "/var/log/pods/web",
  dns: undefined,
  portMappings: [],
  labels: { "secret.label/of-sandbox": "leak-sandbox-label" },
  annotations: { "secret.annotation/of-sandbox": "leak-sandbox-annotation" },
  cgroupParent: "/kubepods/pod1",
  sysctls: { "net.core.somaxconn": "leak-sysctl" },
  namespaces: podNetworking,
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
};

export const container: ContainerConfig = {
  metadata: { name: "nginx", attempt: 0 },
  image: "sha256:1",
  userSpecifiedImage: "nginx",
  command: [],
  args: [],
  workingDir: "",
  env: [],
  mounts: [],
  devices: [],
  cdiDevices: [],
  labels: { "secret.label/of-container": "leak-container-label" },
  annotations: { "secret.annotation/of-container": "leak-container-annotation" },
  logPath: "nginx/0.log",
  stdin: false,
  stdinOnce: false,
  tty: false,
  stopSignal: 0,
  resources: {},
  security: {
    privileged: false,
    capabilities: { add: [], drop: [], addAmbient: [] },
    namespaces: podNetworking,
    selinux: undefined,
    user: { type: "image", gid: undefined },
    supplementalGroups: [],
    supplementalGroupsPolicy: "merge",
    readonlyRootfs: false,
    noNewPrivs: false,
    maskedPaths: [],
    readonlyPaths: [],
    seccomp: { type: "none" },
    apparmor: { type: "none" },
  },
};

const image: ImageConfig = {
  user: "",
  env: ["PATH=/image/bin", "NGINX_VERSION=1", "novalue"],
  entrypoint: ["/entry"],
  cmd: ["serve"],
  workingDir: "",
  stopSignal: "",
  volumes: [],
  labels: { "secret.label/of-image": "leak-image-label" },
};

export interface InputChanges {
  readonly sandbox?: Partial<SandboxConfig>;
  readonly container?: Partial<ContainerConfig>;
  readonly security?: Partial<ContainerConfig["security"]>;
  readonly image?: Partial<ImageConfig>;
  readonly host?: Partial<HostFacts>;
  readonly input?: Partial<OciSpecInput>;
}

/** An input in which every mount's source is its own host path. */
export function specInput(changes: InputChanges = {}): OciSpecInput {
  const security = { ...container.security, ...changes.security };
  const merged: ContainerConfig = { ...container, security, ...changes.container };
  return {
    sandbox: { ...sandbox, ...changes.sandbox },
    container: merged,
    image: { ...image, ...changes.image },
    user: { uid: 0, gid: 0, additionalGids: [0], home: "/root" },
    hostname: "web",
    rootfsPath: "/run/pods/p/containers/c/rootfs",
    namespaces: { network: "/run/pods/p/ns/net", ipc: "/run/pods/p/ns/ipc", uts: "/run/pods/p/ns/uts", pid: "", user: "" },
    targetPidPath: undefined,
    cgroupsPath: "/kubepods/pod1/c",
    podFiles: {
      hosts: "/run/pods/p/etc/hosts",
      resolvConf: "/run/pods/p/etc/resolv.conf",
      hostname: "/run/pods/p/etc/hostname",
      shm: "/run/pods/p/shm",
    },
    mountSources: merged.mounts.map(({ source }) => ({
      path: source.type === "host" ? source.path : `/images/${source.image}/${source.subPath}`,
      mapped: source.type === "image",
      guarded: false,
    })),
    imageVolumes: [],
    devices: [],
    hostDevices: [],
    cdi: undefined,
    seccompProfile: undefined,
    host: { ...hostFacts, ...changes.host },
    ...changes.input,
  };
}

export function hostMount(containerPath: string, changes: Partial<MountRequest> = {}): MountRequest {
  return {
    containerPath,
    source: { type: "host", path: `/host${containerPath}` },
    readonly: "no",
    propagation: "private",
    selinuxRelabel: false,
    options: [],
    uidMappings: [],
    gidMappings: [],
    ...changes,
  };
}

export function deviceNode(containerPath: string, minor: number): DeviceNode {
  return { containerPath, type: "c", major: 10, minor, fileMode: 0o600, uid: 0, gid: 0, permissions: "rw" };
}
