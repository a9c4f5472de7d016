import { posix } from "node:path";
import type { MountPropagation, MountRequest } from "../container-config.ts";
import type { IdMapping } from "../sandbox-config.ts";
import { cdiFileSystems } from "./cdi-edits.ts";
import type { OciSpecInput } from "./input.ts";
import type { OciIdMapping, OciMount } from "./types.ts";

/**
 * The container's mounts, shallow ones first, so that none hides one asked for below it. A mount of the client replaces ours at the same
 * path, and one at /dev replaces everything we would put below it.
 */
export function ociMounts(input: OciSpecInput): readonly OciMount[] {
  const requested = [
    ...input.container.mounts.map((mount, index) => requestedMount(mount, input, index)),
    ...cdiFileSystems(input.cdi).map((mount) => ({ ...mount, destination: cleanPath(mount.destination) })),
  ];
  const taken = new Set(requested.map(({ destination }) => destination));
  const volumes = input.imageVolumes.map(({ containerPath, sourcePath }) => bind(sourcePath, containerPath, ["rprivate", "rw"]));
  const kept = [...kernelMounts(input), ...podMounts(input), ...volumes].filter(
    ({ destination }) => !taken.has(destination) && !(taken.has("/dev") && destination.startsWith("/dev/")),
  );
  return [...kept, ...requested].sort((a, b) => depth(a) - depth(b));
}

/** The widest propagation any mount asks for: a mount cannot receive or send what the root above it does not. */
export function rootfsPropagation(mounts: readonly MountRequest[]): "rprivate" | "rslave" | "rshared" {
  if (mounts.some(({ propagation }) => propagation === "bidirectional")) return "rshared";
  return mounts.some(({ propagation }) => propagation === "host-to-container") ? "rslave" : "rprivate";
}

/** Without doubled or trailing slashes and dots: what is compared must be what is mounted. */
export function cleanPath(path: string): string {
  return posix.resolve("/", path);
}

const PROPAGATION_OPTIONS: Readonly<Record<MountPropagation, string>> = {
  private: "rprivate",
  "host-to-container": "rslave",
  bidirectional: "rshared",
};

const ACCESS_OPTIONS = { no: "rw", yes: "ro", recursive: "rro" } as const;

function requestedMount(mount: MountRequest, { mountSources }: OciSpecInput, index: number): OciMount {
  const source = mountSources[index];
  if (source === undefined) throw new TypeError(`mountSources has no entry for ${mount.containerPath}`);
  const options = [PROPAGATION_OPTIONS[mount.propagation], ACCESS_OPTIONS[source.guarded ? "no" : mount.readonly], ...mount.options];
  return {
    ...bind(source.path, mount.containerPath, options),
    ...(source.mapped || mount.uidMappings.length === 0 ? {} : { uidMappings: mount.uidMappings.map(ociIdMapping) }),
    ...(source.mapped || mount.gidMappings.length === 0 ? {} : { gidMappings: mount.gidMappings.map(ociIdMapping) }),
  };
}

function ociIdMapping({ containerId, hostId, length }: IdMapping): OciIdMapping {
  return { containerID: containerId, hostID: hostId, size: length };
}

const CONFINED = ["nosuid", "noexec", "nodev"];

function kernelMounts(input: OciSpecInput): readonly OciMount[] {
  const { privileged } = input.container.security;
  return [
    { destination: "/proc", type: "proc", source: "proc", options: CONFINED },
    { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "strictatime", "mode=755", "size=65536k"] },
    {
      destination: "/dev/pts",
      type: "devpts",
      source: "devpts",
      options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    mqueue(input),
    sysfs(input),
    { destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: [...CONFINED, "relatime", privileged ? "rw" : "ro"] },
  ];
}

/** A user namespace may mount sysfs only when it owns the network namespace, which it does not on the host's network. */
function sysfs({ sandbox, container }: OciSpecInput): OciMount {
  if (sandbox.namespaces.user !== undefined && sandbox.namespaces.network === "node") {
    return bind("/sys", "/sys", ["rprivate", "rro", ...CONFINED]);
  }
  return { destination: "/sys", type: "sysfs", source: "sysfs", options: [...CONFINED, container.security.privileged ? "rw" : "ro"] };
}

/** As with sysfs: the user namespace has to own the ipc namespace. */
function mqueue({ sandbox }: OciSpecInput): OciMount {
  if (sandbox.namespaces.user !== undefined && sandbox.namespaces.ipc === "node") {
    return bind("/dev/mqueue", "/dev/mqueue", ["rprivate", "rw", ...CONFINED]);
  }
  return { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: CONFINED };
}

function podMounts({ sandbox, container, podFiles }: OciSpecInput): readonly OciMount[] {
  const shm = sandbox.namespaces.ipc === "node" ? "/dev/shm" : podFiles.shm;
  const access = container.security.readonlyRootfs ? "ro" : "rw";
  return [
    bind(shm, "/dev/shm", ["rprivate", "rw", ...CONFINED]),
    bind(podFiles.hostname, "/etc/hostname", ["rprivate", access]),
    bind(podFiles.hosts, "/etc/hosts", ["rprivate", access]),
    bind(podFiles.resolvConf, "/etc/resolv.conf", ["rprivate", access]),
  ];
}

function bind(source: string, destination: string, options: readonly string[]): OciMount {
  return { destination: cleanPath(destination), type: "bind", source, options: ["rbind", ...options] };
}

function depth({ destination }: OciMount): number {
  return destination.split("/").filter((part) => part !== "").length;
}
