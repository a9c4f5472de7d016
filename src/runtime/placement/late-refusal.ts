import { posix } from "node:path";

import type { MountSourceFacts } from "../../host/mount-source.ts";
import type { ContainerConfig } from "../container-config.ts";
import { guestDevice } from "../guest.ts";
import type { CdiEdits } from "../ports.ts";

/** Why a container cannot run in a microVM: what of it only the host's own kernel has. */
export interface LateRefusal {
  readonly reason: "HostNamespace" | "HostDevice" | "MountPropagation" | "HostSocket" | "HostKernel" | "NodeService";
  /** Its path in CreateContainerRequest, as the proto spells it. */
  readonly field: string;
  /** Names the field and says why; the remedy depends on the pod, and is the caller's. */
  readonly message: string;
}

/**
 * The first thing a container asks for that no microVM can give it; undefined: it can run in one. RunPodSandbox could not see any of this.
 * `sources` has the facts of each mount, in the order of `config.mounts`; undefined for an image volume or a path that is not there yet.
 * `cdi` is what the CDI devices change beside the mounts.
 */
export function lateRefusal(
  config: ContainerConfig,
  sources: readonly (MountSourceFacts | undefined)[],
  cdi?: CdiEdits,
): LateRefusal | undefined {
  return namespaceRefusal(config) ?? deviceRefusal(config) ?? cdiRefusal(config, cdi) ?? mountRefusal(config, sources);
}

function namespaceRefusal({ security }: ContainerConfig): LateRefusal | undefined {
  for (const name of ["network", "pid", "ipc"] as const) {
    if (security.namespaces[name] !== "node") continue;
    const field = `config.linux.security_context.namespace_options.${name}`;
    return refuse("HostNamespace", field, "is NODE, and the node's namespaces are not inside a microVM");
  }
  return undefined;
}

function deviceRefusal({ devices }: ContainerConfig): LateRefusal | undefined {
  for (const [index, { hostPath }] of devices.entries()) {
    if (guestDevice(hostPath) !== undefined) continue;
    const why = `${quoted(hostPath)} is a device of the host, which a microVM does not have`;
    return refuse("HostDevice", `config.devices[${index}].host_path`, why);
  }
  return undefined;
}

/** A CDI device that is made of environment and files alone can be had in a guest; its nodes and the host's programs cannot. */
function cdiRefusal({ cdiDevices }: ContainerConfig, cdi: CdiEdits | undefined): LateRefusal | undefined {
  if (cdi === undefined) return undefined;
  const why = cdiReason(cdi);
  return why === undefined ? undefined : refuse("HostDevice", "config.CDI_devices", `${cdiDevices.map(quoted).join(", ")} ${why}`);
}

function cdiReason({ deviceNodes, hooks, intelRdt }: CdiEdits): string | undefined {
  const [node] = deviceNodes;
  if (node !== undefined) return `needs ${quoted(node.hostPath)}, a device of the host, which a microVM does not have`;
  const [hook] = hooks;
  if (hook !== undefined) return `needs ${quoted(hook.path)} to be run on the host, which prepares nothing in a microVM`;
  return intelRdt === undefined ? undefined : "needs the host's cache allocation (intelRdt), which a microVM does not have";
}

function mountRefusal({ mounts }: ContainerConfig, sources: readonly (MountSourceFacts | undefined)[]): LateRefusal | undefined {
  for (const [index, { propagation, source }] of mounts.entries()) {
    const field = `config.mounts[${index}]`;
    if (propagation !== "private") {
      const why = `is ${PROPAGATION_NAMES[propagation]}, and mounts do not pass between the host and a microVM`;
      return refuse("MountPropagation", `${field}.propagation`, why);
    }
    if (source.type === "image") continue;
    const facts = sources[index];
    const refusal = pathRefusal(`${field}.host_path`, source.path, facts) ?? kindRefusal(`${field}.host_path`, source.path, facts);
    if (refusal !== undefined) return refusal;
  }
  return undefined;
}

const PROPAGATION_NAMES = {
  "host-to-container": "PROPAGATION_HOST_TO_CONTAINER",
  bidirectional: "PROPAGATION_BIDIRECTIONAL",
} as const;

/** Interfaces of the host's kernel: through a share they would be files without their meaning. */
const KERNEL_DIRECTORIES = ["/dev", "/proc", "/sys"];

/** Where services of the node keep their sockets and mounts. `/var/run` is a link to `/run`, and asked for by either name. */
const SERVICE_DIRECTORIES = [
  "/var/lib/kubelet/plugins",
  "/var/lib/kubelet/plugins_registry",
  "/var/lib/kubelet/device-plugins",
  "/var/lib/kubelet/pod-resources",
  "/run/aurae",
  "/run/aurae-cri",
  "/run/containerd",
  "/run/cri-dockerd.sock",
  "/run/crio",
  "/run/dbus",
  "/run/docker",
  "/run/docker.sock",
  "/run/netns",
  "/run/podman",
  "/run/systemd",
  "/run/udev",
];

/** A source that is one of the known places, lies in one, or holds one; by the name asked for as well as by where it leads. */
function pathRefusal(field: string, asked: string, facts: MountSourceFacts | undefined): LateRefusal | undefined {
  const paths = [asked, ...(facts === undefined ? [] : [facts.path])].map((path) =>
    posix.resolve("/", path).replace(/^\/var\/run(?=\/|$)/, "/run"),
  );
  for (const path of paths) {
    const kernel = KERNEL_DIRECTORIES.find((directory) => overlaps(path, directory));
    if (kernel !== undefined)
      return refuse("HostKernel", field, `${quoted(asked)} shows the host's ${kernel}, which belongs to the host's kernel`);
    const service = SERVICE_DIRECTORIES.find((directory) => overlaps(path, directory));
    if (service !== undefined) {
      return refuse(
        "NodeService",
        field,
        `${quoted(asked)} reaches ${service}, where services of the node listen: a microVM cannot call them`,
      );
    }
  }
  return undefined;
}

function overlaps(path: string, directory: string): boolean {
  return isWithin(path, directory) || isWithin(directory, path);
}

function isWithin(path: string, directory: string): boolean {
  return directory === "/" || path === directory || path.startsWith(`${directory}/`);
}

/** File systems that are windows into the host's kernel, wherever they are mounted. */
const KERNEL_FILE_SYSTEMS = new Set([
  "binfmt_misc",
  "bpf",
  "cgroup",
  "cgroup2",
  "configfs",
  "debugfs",
  "devpts",
  "devtmpfs",
  "efivarfs",
  "fusectl",
  "hugetlbfs",
  "mqueue",
  "nsfs",
  "proc",
  "pstore",
  "resctrl",
  "securityfs",
  "selinuxfs",
  "sysfs",
  "tracefs",
]);

function kindRefusal(field: string, asked: string, facts: MountSourceFacts | undefined): LateRefusal | undefined {
  if (facts === undefined) return undefined;
  if (KERNEL_FILE_SYSTEMS.has(facts.fsType)) {
    return refuse("HostKernel", field, `${quoted(asked)} lies on ${facts.fsType}, which belongs to the host's kernel`);
  }
  switch (facts.kind) {
    case "file":
    case "directory":
      return undefined;
    case "socket":
      return refuse("HostSocket", field, `${quoted(asked)} is a unix socket: nothing in a microVM can connect to a socket of the host`);
    case "fifo":
      return refuse("HostSocket", field, `${quoted(asked)} is a named pipe: it carries nothing between the host and a microVM`);
    case "block-device":
    case "char-device":
      return refuse("HostDevice", field, `${quoted(asked)} is a device of the host, which a microVM does not have`);
  }
}

/** Paths are the client's: bounded and escaped before they go into messages and records. */
function quoted(text: string): string {
  return JSON.stringify(text.length <= 256 ? text : `${text.slice(0, 256)}…`);
}

function refuse(reason: LateRefusal["reason"], field: string, why: string): LateRefusal {
  return { reason, field, message: `${field}: ${why}` };
}
