import type { SpecInput } from "./oci-spec.ts";
import type { OciDevice, OciDeviceRule, OciLinux, OciNamespace, OciResources } from "./oci-types.ts";
import type { Resources } from "./sandbox-config.ts";

export function ociLinux(input: SpecInput): OciLinux {
  const { container, cgroupsPath, devices, seccomp, host } = input;
  const { privileged, maskedPaths, readonlyPaths } = container.security;
  return {
    namespaces: namespaces(input),
    cgroupsPath,
    resources: { ...ociResources(container.resources, host), devices: deviceRules(input) },
    devices: devices.map(({ permissions: _permissions, ...device }): OciDevice => device),
    rootfsPropagation: rootfsPropagation(input),
    maskedPaths: privileged ? [] : maskedPaths,
    readonlyPaths: privileged ? [] : readonlyPaths,
    ...(seccomp === undefined || privileged ? {} : { seccomp }),
  };
}

/** An absent limit is left out, so that the same function serves creation and update. */
export function ociResources(resources: Resources, host: { readonly swapAccounting: boolean }): OciResources {
  const cpu = {
    ...(resources.cpuShares === undefined ? {} : { shares: resources.cpuShares }),
    ...(resources.cpuQuotaUs === undefined ? {} : { quota: resources.cpuQuotaUs }),
    ...(resources.cpuPeriodUs === undefined ? {} : { period: resources.cpuPeriodUs }),
    ...(resources.cpusetCpus === undefined ? {} : { cpus: resources.cpusetCpus }),
    ...(resources.cpusetMems === undefined ? {} : { mems: resources.cpusetMems }),
  };
  const limit = resources.memoryLimitBytes;
  // Without a word about swap the limit includes it: none on top.
  const swap = host.swapAccounting ? (resources.memorySwapLimitBytes ?? limit) : undefined;
  const memory = { ...(limit === undefined ? {} : { limit }), ...(swap === undefined ? {} : { swap }) };
  return {
    ...(Object.keys(cpu).length === 0 ? {} : { cpu }),
    ...(Object.keys(memory).length === 0 ? {} : { memory }),
    ...(resources.hugepageLimits === undefined
      ? {}
      : { hugepageLimits: resources.hugepageLimits.map(({ pageSize, limitBytes }) => ({ pageSize, limit: limitBytes })) }),
    ...(resources.unified === undefined ? {} : { unified: resources.unified }),
  };
}

/** The pod's pinned namespaces are joined, the node's are left out, the rest is made. */
function namespaces({ container, podNamespaces, targetPidPath, host }: SpecInput): readonly OciNamespace[] {
  const { privileged } = container.security;
  const joined = (type: OciNamespace["type"], path: string): readonly OciNamespace[] => (path === "" ? [] : [{ type, path }]);
  return [
    { type: "mount" },
    ...joined("network", podNamespaces.network),
    ...joined("ipc", podNamespaces.ipc),
    ...joined("uts", podNamespaces.uts),
    ...pidNamespace(container.security.namespaces.pid, podNamespaces.pid, targetPidPath),
    ...(host.cgroupVersion === "v2" && !privileged ? [{ type: "cgroup" } as const] : []),
  ];
}

function pidNamespace(mode: "pod" | "container" | "node" | "target", podPath: string, targetPath: string): readonly OciNamespace[] {
  switch (mode) {
    case "pod":
      return [{ type: "pid", path: podPath }];
    case "container":
      return [{ type: "pid" }];
    case "target":
      return [{ type: "pid", path: targetPath }];
    case "node":
      return [];
  }
}

/** Deny all but what is asked for; the OCI runtime adds the standard devices itself. */
function deviceRules({ container, devices }: SpecInput): readonly OciDeviceRule[] {
  if (container.security.privileged) return [{ allow: true, access: "rwm" }];
  const allowed = devices.map(({ type, major, minor, permissions }) => ({ allow: true, type, major, minor, access: permissions }));
  return [{ allow: false, access: "rwm" }, ...allowed];
}

/** A mount propagates only as far as the root it is under lets it. */
function rootfsPropagation({ container }: SpecInput): string {
  const modes = container.mounts.map((mount) => mount.propagation);
  if (modes.includes("bidirectional")) return "rshared";
  return modes.includes("host-to-container") ? "rslave" : "rprivate";
}
