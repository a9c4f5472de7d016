import { posix } from "node:path";

import {
  type Capability,
  type ContainerConfig as CriContainerConfig,
  MountPropagation as CriPropagation,
  type KeyValue,
  type LinuxContainerSecurityContext,
  type Mount,
  Signal,
} from "../../../api/gen/cri/v1/api.ts";
import type {
  CapabilityChanges,
  ContainerConfig,
  ContainerSecurity,
  EnvVar,
  MountPropagation,
  MountRequest,
  MountSource,
  UserRequest,
} from "../../runtime/container-config.ts";
import { CAPABILITIES } from "../../runtime/oci/capabilities.ts";
import { parseSignal } from "../../runtime/stop-signal.ts";
import { InvalidArgumentError } from "../errors.ts";
import { absolutePath, known, optionalPath, requireId, requireMessage, sortedMap, unixId, withoutNul } from "./fields.ts";
import { decodeResources } from "./resources.ts";
import {
  decodeApparmor,
  decodeGroups,
  decodeGroupsPolicy,
  decodeIdMappings,
  decodeNamespaces,
  decodeSeccomp,
  decodeSelinux,
} from "./security.ts";

/** Decodes and checks `CreateContainerRequest.config`. Throws `InvalidArgumentError` with the field's path. */
export function decodeContainerConfig(message: CriContainerConfig | undefined): ContainerConfig {
  const config = requireMessage(message, "config");
  if (config.windows !== undefined) throw new InvalidArgumentError("config.windows", "must be absent: this node runs Linux");
  const { name, attempt } = requireMessage(config.metadata, "config.metadata");
  const image = requireId(config.image?.image, "config.image.image");
  return {
    metadata: { name: requireId(name, "config.metadata.name"), attempt },
    image,
    userSpecifiedImage: config.image?.userSpecifiedImage || image,
    command: config.command.map((word) => withoutNul(word, "config.command")),
    args: config.args.map((word) => withoutNul(word, "config.args")),
    workingDir: optionalPath(config.workingDir, "config.working_dir"),
    env: config.envs.map(decodeEnv),
    mounts: config.mounts.map(decodeMount),
    devices: config.devices.map((device, index) => ({
      containerPath: absolutePath(device.containerPath || device.hostPath, `config.devices[${index}].container_path`),
      hostPath: absolutePath(device.hostPath, `config.devices[${index}].host_path`),
      permissions: decodePermissions(device.permissions, `config.devices[${index}].permissions`),
    })),
    cdiDevices: decodeCdiDevices(config),
    labels: sortedMap(config.labels),
    annotations: sortedMap(config.annotations),
    logPath: decodeLogPath(config.logPath),
    stdin: config.stdin,
    stdinOnce: config.stdinOnce,
    tty: config.tty,
    stopSignal: decodeSignal(config.stopSignal),
    resources: decodeResources(config.linux?.resources, "config.linux.resources"),
    security: decodeSecurity(config.linux?.securityContext),
  };
}

/** It names a file below the sandbox's log directory, and only there. */
function decodeLogPath(path: string): string {
  if (path.startsWith("/") || path.includes("\0") || path.split("/").includes("..")) {
    throw new InvalidArgumentError(
      "config.log_path",
      `must be a path relative to the sandbox's log_directory, without '..', is ${JSON.stringify(path)}`,
    );
  }
  return path;
}

function decodeEnv({ key, value }: KeyValue, index: number): EnvVar {
  const field = `config.envs[${index}]`;
  if (key === "" || /[=\0]/.test(key)) throw new InvalidArgumentError(`${field}.key`, "must be a name without '=' and NUL");
  if (value.includes(0)) throw new InvalidArgumentError(`${field}.value`, "must not hold a NUL byte");
  const text = value.toString("utf8");
  return Buffer.from(text).equals(value) ? { key, value: text } : { key, base64: value.toString("base64") };
}

const PROPAGATIONS: Readonly<Record<number, MountPropagation>> = {
  [CriPropagation.PROPAGATION_PRIVATE]: "private",
  [CriPropagation.PROPAGATION_HOST_TO_CONTAINER]: "host-to-container",
  [CriPropagation.PROPAGATION_BIDIRECTIONAL]: "bidirectional",
};

const MOUNT_OPTIONS = ["noexec", "nodev", "nosuid"];

function decodeMount(mount: Mount, index: number): MountRequest {
  const field = `config.mounts[${index}]`;
  const propagation = known(PROPAGATIONS, mount.propagation, `${field}.propagation`);
  if (mount.recursiveReadOnly && !mount.readonly)
    throw new InvalidArgumentError(`${field}.recursive_read_only`, "needs readonly to be set too");
  if (mount.recursiveReadOnly && propagation !== "private") {
    throw new InvalidArgumentError(`${field}.recursive_read_only`, "needs propagation PROPAGATION_PRIVATE");
  }
  const unknown = mount.mountOptions.find((option) => !MOUNT_OPTIONS.includes(option));
  if (unknown !== undefined) {
    throw new InvalidArgumentError(`${field}.mount_options`, `does not know ${JSON.stringify(unknown)}: use ${MOUNT_OPTIONS.join(", ")}`);
  }
  return {
    containerPath: decodeContainerPath(mount.containerPath, `${field}.container_path`),
    source: decodeSource(mount, field),
    readonly: mount.recursiveReadOnly ? "recursive" : mount.readonly ? "yes" : "no",
    propagation,
    selinuxRelabel: mount.selinuxRelabel,
    options: mount.mountOptions,
    uidMappings: decodeIdMappings(mount.uidMappings),
    gidMappings: decodeIdMappings(mount.gidMappings),
  };
}

function decodeSource(mount: Mount, field: string): MountSource {
  const image = mount.image?.image ?? "";
  if (image === "") {
    if (mount.imageSubPath !== "") throw new InvalidArgumentError(`${field}.image_sub_path`, "may be set only with image");
    return { type: "host", path: absolutePath(mount.hostPath, `${field}.host_path`) };
  }
  if (mount.hostPath !== "") throw new InvalidArgumentError(`${field}.host_path`, "must be empty when image is set");
  if (!mount.readonly) throw new InvalidArgumentError(`${field}.readonly`, "must be set: an image volume cannot be written");
  if (mount.propagation !== CriPropagation.PROPAGATION_PRIVATE)
    throw new InvalidArgumentError(`${field}.propagation`, "must be PROPAGATION_PRIVATE with image: nothing is mounted below an image");
  const subPath = mount.imageSubPath;
  if (subPath.startsWith("/") || subPath.includes("\0") || subPath.split("/").includes("..")) {
    throw new InvalidArgumentError(`${field}.image_sub_path`, `must be a relative path without '..', is ${JSON.stringify(subPath)}`);
  }
  return { type: "image", image, subPath };
}

function decodeContainerPath(path: string, field: string): string {
  if (posix.resolve("/", absolutePath(path, field)) !== "/") return path;
  throw new InvalidArgumentError(field, "must not be the root of the container: mount below it");
}

/** Device plugins from before the field give names, separated by commas, in annotations with this prefix. */
const CDI_ANNOTATION = "cdi.k8s.io/";

/** Each device once. */
function decodeCdiDevices({ CDIDevices, annotations }: CriContainerConfig): readonly string[] {
  const annotated = Object.entries(sortedMap(annotations)).flatMap(([key, value]) =>
    key.startsWith(CDI_ANNOTATION) ? value.split(",").map((name) => cdiDevice(name, `config.annotations[${JSON.stringify(key)}]`)) : [],
  );
  const named = CDIDevices.map(({ name }, index) => cdiDevice(name, `config.CDI_devices[${index}].name`));
  return [...new Set([...named, ...annotated])];
}

/** `vendor/class=device`, as the CDI specification has it. */
function cdiDevice(name: string, field: string): string {
  if (/^[A-Za-z][\w.-]*\/[A-Za-z][\w-]*=[A-Za-z0-9][\w.:-]*$/.test(name)) return name;
  throw new InvalidArgumentError(field, `must be of the form vendor/class=device, is ${JSON.stringify(name)}`);
}

function decodePermissions(permissions: string, field: string): string {
  if (permissions === "") return "rwm";
  if (/^[rwm]+$/.test(permissions)) return permissions;
  throw new InvalidArgumentError(field, `must be made of r, w and m, is ${JSON.stringify(permissions)}`);
}

function decodeSignal(signal: Signal): number {
  if (signal === Signal.SIGNAL_RUNTIME_DEFAULT) return 0;
  const name = Object.entries(Signal).find(([, value]) => value === signal)?.[0] ?? "";
  const number = parseSignal(name.replace("SIGNAL_", ""));
  if (number === undefined) throw new InvalidArgumentError("config.stop_signal", `has no value ${signal}`);
  return number;
}

function decodeSecurity(context: LinuxContainerSecurityContext | undefined): ContainerSecurity {
  const field = "config.linux.security_context";
  return {
    privileged: context?.privileged ?? false,
    capabilities: decodeCapabilities(context?.capabilities, `${field}.capabilities`),
    namespaces: decodeNamespaces(context?.namespaceOptions, `${field}.namespace_options`),
    selinux: decodeSelinux(context?.selinuxOptions),
    user: decodeUser(context, field),
    supplementalGroups: decodeGroups(context?.supplementalGroups ?? [], `${field}.supplemental_groups`),
    supplementalGroupsPolicy: decodeGroupsPolicy(context?.supplementalGroupsPolicy ?? 0, `${field}.supplemental_groups_policy`),
    readonlyRootfs: context?.readonlyRootfs ?? false,
    noNewPrivs: context?.noNewPrivs ?? false,
    maskedPaths: (context?.maskedPaths ?? []).map((path) => absolutePath(path, `${field}.masked_paths`)),
    readonlyPaths: (context?.readonlyPaths ?? []).map((path) => absolutePath(path, `${field}.readonly_paths`)),
    seccomp: decodeSeccomp(context?.seccomp, context?.seccompProfilePath ?? "", field),
    apparmor: decodeApparmor(context?.apparmor, context?.apparmorProfile ?? "", field),
  };
}

function decodeCapabilities(capability: Capability | undefined, field: string): CapabilityChanges {
  const names = (list: readonly string[], part: string) => list.map((name) => capabilityName(name, `${field}.${part}`));
  return {
    add: names(capability?.addCapabilities ?? [], "add_capabilities"),
    drop: names(capability?.dropCapabilities ?? [], "drop_capabilities"),
    addAmbient: names(capability?.addAmbientCapabilities ?? [], "add_ambient_capabilities"),
  };
}

function capabilityName(name: string, field: string): string {
  const upper = name.toUpperCase();
  if (upper === "ALL") return upper;
  const full = upper.startsWith("CAP_") ? upper : `CAP_${upper}`;
  if (!CAPABILITIES.includes(full)) throw new InvalidArgumentError(field, `does not know the capability ${JSON.stringify(name)}`);
  return full;
}

function decodeUser(context: LinuxContainerSecurityContext | undefined, field: string): UserRequest {
  const gid = context?.runAsGroup && unixId(context.runAsGroup.value, `${field}.run_as_group`);
  if (context?.runAsUser !== undefined) return { type: "uid", uid: unixId(context.runAsUser.value, `${field}.run_as_user`), gid };
  const username = context?.runAsUsername ?? "";
  if (username !== "") return { type: "username", username, gid };
  if (gid !== undefined) throw new InvalidArgumentError(`${field}.run_as_group`, "needs run_as_user or run_as_username to be set too");
  return { type: "image", gid: undefined };
}
