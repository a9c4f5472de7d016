import type { DeviceNode } from "../../host/devices.ts";
import { invalid } from "../errors.ts";
import type { Resources } from "../sandbox-config.ts";
import type { HostFacts, OciSpecInput } from "./input.ts";
import { cleanPath, rootfsPropagation } from "./mounts.ts";
import { ociSeccomp } from "./seccomp/seccomp.ts";
import type { OciDevice, OciDeviceRule, OciLinux, OciNamespace, OciResources } from "./types.ts";

/** `config.json`'s linux section. `capabilities` is the bounding set: it widens the default seccomp profile. */
export function ociLinux(input: OciSpecInput, capabilities: readonly string[]): OciLinux {
  const { container, host } = input;
  const { security } = container;
  const devices = devicesOf(input);
  const seccomp = ociSeccomp(input, capabilities);
  return {
    namespaces: namespacesOf(input),
    cgroupsPath: input.cgroupsPath,
    ...(devices.length === 0 ? {} : { devices }),
    resources: { devices: deviceRules(security.privileged, input.devices), ...ociResources(container.resources, host) },
    rootfsPropagation: rootfsPropagation(container.mounts),
    ...(seccomp === undefined ? {} : { seccomp }),
    ...(security.privileged || security.maskedPaths.length === 0 ? {} : { maskedPaths: security.maskedPaths }),
    ...(security.privileged || security.readonlyPaths.length === 0 ? {} : { readonlyPaths: security.readonlyPaths }),
    ...(input.cdi?.intelRdt === undefined ? {} : { intelRdt: input.cdi.intelRdt }),
  };
}

function namespacesOf(input: OciSpecInput): readonly OciNamespace[] {
  const { namespaces, host, container } = input;
  const joined = (type: OciNamespace["type"], path: string): readonly OciNamespace[] => (path === "" ? [] : [{ type, path }]);
  // The kernel hides the host's tree behind a cgroup namespace only on v2; a privileged container is meant to see it.
  const cgroup: readonly OciNamespace[] = host.cgroupVersion === 2 && !container.security.privileged ? [{ type: "cgroup" }] : [];
  return [
    { type: "mount" },
    ...joined("user", namespaces.user),
    ...joined("network", namespaces.network),
    ...joined("ipc", namespaces.ipc),
    ...joined("uts", namespaces.uts),
    ...pidNamespace(input),
    ...cgroup,
  ];
}

/** `pod` is the pod's pid namespace, whatever that is: clients that send a container no options mean "as the sandbox". */
function pidNamespace({ container, sandbox, namespaces, targetPidPath }: OciSpecInput): readonly OciNamespace[] {
  const { pid } = container.security.namespaces;
  switch (pid === "pod" ? sandbox.namespaces.pid : pid) {
    case "node":
      return [];
    case "container":
      return [{ type: "pid" }];
    case "target":
      return [{ type: "pid", path: given(targetPidPath, "targetPidPath") }];
    case "pod":
      return [{ type: "pid", path: given(namespaces.pid, "namespaces.pid") }];
  }
}

/** An empty path would make the OCI runtime create a namespace instead of joining one. */
function given(path: string | undefined, name: string): string {
  if (path === undefined || path === "") throw new TypeError(`${name} is missing`);
  return path;
}

/** With the client's own /dev, nodes made by the OCI runtime would land in the volume behind it. */
function devicesOf({ container, devices, hostDevices }: OciSpecInput): readonly OciDevice[] {
  if (container.mounts.some(({ containerPath }) => cleanPath(containerPath) === "/dev")) return [];
  const paths = new Set(devices.map(({ containerPath }) => containerPath));
  const all = container.security.privileged ? hostDevices.filter(({ containerPath }) => !paths.has(containerPath)) : [];
  return [...all, ...devices].map(({ containerPath: path, type, major, minor, fileMode, uid, gid }) => ({
    path,
    type,
    major,
    minor,
    fileMode,
    uid,
    gid,
  }));
}

/** Nothing but the standard devices, which every OCI runtime allows by itself, and those asked for. */
function deviceRules(privileged: boolean, devices: readonly DeviceNode[]): readonly OciDeviceRule[] {
  if (privileged) return [{ allow: true, access: "rwm" }];
  return [
    { allow: false, access: "rwm" },
    ...devices.map(({ type, major, minor, permissions }) => ({ allow: true, type, major, minor, access: permissions })),
  ];
}

/** Limits for `create` and `update`: what is absent is not written. */
export function ociResources(
  resources: Resources,
  host: Pick<HostFacts, "cgroupVersion" | "swapAccounting" | "hugepageSizes">,
): OciResources {
  const memory = memoryOf(resources, host.swapAccounting);
  const cpu = present({
    shares: resources.cpuShares,
    quota: resources.cpuQuotaUs,
    period: resources.cpuPeriodUs,
    cpus: resources.cpusetCpus,
    mems: resources.cpusetMems,
  });
  const hugepageLimits = hugepagesOf(resources, host.hugepageSizes);
  if (resources.unified !== undefined && host.cgroupVersion === 1) {
    throw invalid("linux.resources.unified", "needs cgroup v2, and this node runs v1: remove it");
  }
  return {
    ...(Object.keys(memory).length === 0 ? {} : { memory }),
    ...(Object.keys(cpu).length === 0 ? {} : { cpu }),
    ...(hugepageLimits.length === 0 ? {} : { hugepageLimits }),
    ...(resources.unified === undefined ? {} : { unified: resources.unified }),
  };
}

/** Memory without a word about swap means no swap: a limit that can be swapped around would not be one. */
function memoryOf({ memoryLimitBytes, memorySwapLimitBytes }: Resources, swapAccounting: boolean) {
  const swap = memorySwapLimitBytes ?? memoryLimitBytes;
  return present({ limit: memoryLimitBytes, swap: swapAccounting ? swap : undefined });
}

/** The kubelet names every size of the node, most of them with 0: without a controller those are already met. */
function hugepagesOf({ hugepageLimits }: Resources, sizes: readonly string[]) {
  const wanted = (hugepageLimits ?? []).filter(({ pageSize, limitBytes }) => limitBytes > 0 || sizes.includes(pageSize));
  const missing = wanted.find(({ pageSize }) => !sizes.includes(pageSize));
  if (missing !== undefined) {
    const have = sizes.length === 0 ? "it has no hugetlb controller" : `use one of ${sizes.join(", ")}`;
    throw invalid("linux.resources.hugepage_limits", `this node cannot limit pages of ${missing.pageSize}: ${have}`);
  }
  return wanted.map(({ pageSize, limitBytes }) => ({ pageSize, limit: limitBytes }));
}

type Present<T> = { -readonly [K in keyof T]?: Exclude<T[K], undefined> };

function present<T extends object>(fields: T): Present<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Present<T>;
}
