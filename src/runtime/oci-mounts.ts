import type { MountPropagation, MountRequest } from "./container-config.ts";
import type { SpecInput } from "./oci-spec.ts";
import type { OciMount } from "./oci-types.ts";

const NO_SUID_EXEC_DEV = ["nosuid", "noexec", "nodev"] as const;

/** Defaults, then the image's volumes, then what was asked for, parents before children. A later mount replaces an earlier one at its path. */
export function ociMounts(input: SpecInput): readonly OciMount[] {
  const requested = input.container.mounts.map((mount, index) => requestedMount(mount, input.mountSources[index] ?? ""));
  const taken = new Set(requested.map((mount) => mount.destination));
  const ownDev = taken.has("/dev");
  const provided = [...defaultMounts(input), ...podMounts(input), ...volumeMounts(input)].filter(
    ({ destination }) => !taken.has(destination) && !(ownDev && (destination === "/dev" || destination.startsWith("/dev/"))),
  );
  return [...provided, ...requested].sort((a, b) => depth(a.destination) - depth(b.destination));
}

function defaultMounts({ container }: SpecInput): readonly OciMount[] {
  const access = container.security.privileged ? "rw" : "ro";
  return [
    { destination: "/proc", type: "proc", source: "proc", options: NO_SUID_EXEC_DEV },
    { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "strictatime", "mode=755", "size=65536k"] },
    {
      destination: "/dev/pts",
      type: "devpts",
      source: "devpts",
      options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: NO_SUID_EXEC_DEV },
    { destination: "/sys", type: "sysfs", source: "sysfs", options: [...NO_SUID_EXEC_DEV, access] },
    { destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: [...NO_SUID_EXEC_DEV, "relatime", access] },
  ];
}

/** What the pod's containers share. */
function podMounts({ container, files, hostIpc }: SpecInput): readonly OciMount[] {
  const access = container.security.readonlyRootfs ? "ro" : "rw";
  const bind = (destination: string, source: string, ...options: readonly string[]): OciMount => ({
    destination,
    type: "bind",
    source,
    options: ["rbind", "rprivate", ...options],
  });
  return [
    bind("/dev/shm", hostIpc ? "/dev/shm" : files.shm, "rw", ...NO_SUID_EXEC_DEV),
    bind("/etc/hostname", files.hostname, access),
    bind("/etc/hosts", files.hosts, access),
    bind("/etc/resolv.conf", files.resolvConf, access),
  ];
}

/** An image's volumes: writable, and gone with the container. */
function volumeMounts({ volumes }: SpecInput): readonly OciMount[] {
  return volumes.map(({ containerPath, hostPath }) => ({
    destination: clean(containerPath),
    type: "bind",
    source: hostPath,
    options: ["rbind", "rprivate", "rw"],
  }));
}

const PROPAGATIONS: { readonly [Mode in MountPropagation]: string } = {
  private: "rprivate",
  "host-to-container": "rslave",
  bidirectional: "rshared",
};

const ACCESS = { no: "rw", yes: "ro", recursive: "rro" } as const;

function requestedMount(mount: MountRequest, source: string): OciMount {
  return {
    destination: clean(mount.containerPath),
    type: "bind",
    source,
    options: ["rbind", PROPAGATIONS[mount.propagation], ACCESS[mount.readonly], ...mount.options],
  };
}

/** Without `.`, `..`, doubled and trailing slashes; `..` never leaves the root. */
function clean(path: string): string {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}`;
}

function depth(path: string): number {
  return path === "/" ? 0 : path.split("/").length - 1;
}
