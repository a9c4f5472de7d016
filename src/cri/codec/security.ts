import {
  SupplementalGroupsPolicy as CriGroupsPolicy,
  NamespaceMode as CriNamespaceMode,
  type SecurityProfile as CriSecurityProfile,
  type UserNamespace as CriUserNamespace,
  type IDMapping,
  type NamespaceOption,
  SecurityProfile_ProfileType as ProfileType,
  type SELinuxOption,
} from "../../../api/gen/cri/v1/api.ts";
import type {
  IdMapping,
  NamespaceMode,
  NamespaceModes,
  SecurityProfile,
  SelinuxOptions,
  SupplementalGroupsPolicy,
  UserNamespace,
} from "../../runtime/sandbox-config.ts";
import { InvalidArgumentError } from "../errors.ts";
import { absolutePath, known, unixId, withoutNul } from "./fields.ts";

const MODES: Readonly<Record<number, NamespaceMode>> = {
  [CriNamespaceMode.POD]: "pod",
  [CriNamespaceMode.CONTAINER]: "container",
  [CriNamespaceMode.NODE]: "node",
  [CriNamespaceMode.TARGET]: "target",
};

/** Absent options are CRI's zero values: everything shared in the pod. */
export function decodeNamespaces(options: NamespaceOption | undefined, field: string): NamespaceModes {
  const pid = known(MODES, options?.pid ?? 0, `${field}.pid`);
  const targetId = options?.targetId ?? "";
  if (pid === "target" && targetId === "")
    throw new InvalidArgumentError(`${field}.target_id`, "must name the container whose pid namespace is joined");
  return {
    network: podOrNode(options?.network ?? 0, `${field}.network`),
    pid,
    ipc: podOrNode(options?.ipc ?? 0, `${field}.ipc`),
    targetId: pid === "target" ? targetId : "",
    user: decodeUserNamespace(options?.usernsOptions, `${field}.userns_options`),
  };
}

function podOrNode(value: number, field: string): "pod" | "node" {
  const mode = known(MODES, value, field);
  if (mode === "pod" || mode === "node") return mode;
  throw new InvalidArgumentError(field, `must be POD or NODE, is ${mode.toUpperCase()}`);
}

function decodeUserNamespace(userns: CriUserNamespace | undefined, field: string): UserNamespace | undefined {
  if (userns === undefined) return undefined;
  const mode = known(MODES, userns.mode, `${field}.mode`);
  const mapped = userns.uids.length + userns.gids.length > 0;
  if (mode === "node") {
    if (mapped) throw new InvalidArgumentError(field, "mode NODE takes no mappings: remove uids and gids or use mode POD");
    return undefined;
  }
  if (mode !== "pod") throw new InvalidArgumentError(`${field}.mode`, `must be POD or NODE, is ${mode.toUpperCase()}`);
  return { uids: onlyMapping(userns.uids, `${field}.uids`), gids: onlyMapping(userns.gids, `${field}.gids`) };
}

function onlyMapping(mappings: readonly IDMapping[], field: string): IdMapping {
  const [first, second] = mappings;
  if (first === undefined || second !== undefined)
    throw new InvalidArgumentError(field, `must hold exactly one mapping, holds ${mappings.length}`);
  if (first.containerId !== 0)
    throw new InvalidArgumentError(`${field}.container_id`, `must be 0, is ${first.containerId}: the container's root has to be mapped`);
  if (first.hostId + first.length > 2 ** 32)
    throw new InvalidArgumentError(`${field}.length`, "reaches beyond the highest id: lower host_id or length");
  if (first.length === 0) throw new InvalidArgumentError(`${field}.length`, "must be at least 1");
  return { containerId: first.containerId, hostId: first.hostId, length: first.length };
}

export function decodeIdMappings(mappings: readonly IDMapping[]): readonly IdMapping[] {
  return mappings.map(({ containerId, hostId, length }) => ({ containerId, hostId, length }));
}

/** `deprecatedPath` is the string form that older clients send; the message wins over it. */
export function decodeSeccomp(profile: CriSecurityProfile | undefined, deprecatedPath: string, context: string): SecurityProfile {
  const decoded = decodeProfile(profile, deprecatedPath, `${context}.seccomp`);
  if (decoded.type === "localhost") absolutePath(decoded.reference, `${context}.seccomp.localhost_ref`);
  return decoded;
}

/** As with seccomp; the reference is the name of a profile. */
export function decodeApparmor(profile: CriSecurityProfile | undefined, deprecatedPath: string, context: string): SecurityProfile {
  const decoded = decodeProfile(profile, deprecatedPath, `${context}.apparmor`);
  return decoded.type === "localhost"
    ? { ...decoded, reference: withoutNul(decoded.reference, `${context}.apparmor.localhost_ref`) }
    : decoded;
}

function decodeProfile(profile: CriSecurityProfile | undefined, deprecatedPath: string, field: string): SecurityProfile {
  if (profile === undefined) return decodeDeprecatedProfile(deprecatedPath, field);
  const reference = profile.localhostRef;
  if (profile.profileType === ProfileType.Localhost) {
    if (reference === "") throw new InvalidArgumentError(`${field}.localhost_ref`, "must name the profile when profile_type is Localhost");
    return { type: "localhost", reference };
  }
  if (reference !== "") throw new InvalidArgumentError(`${field}.localhost_ref`, "may be set only when profile_type is Localhost");
  switch (profile.profileType) {
    case ProfileType.RuntimeDefault:
      return { type: "runtime-default" };
    case ProfileType.Unconfined:
      return { type: "unconfined" };
    default:
      throw new InvalidArgumentError(`${field}.profile_type`, `has no value ${String(profile.profileType)}`);
  }
}

function decodeDeprecatedProfile(path: string, field: string): SecurityProfile {
  if (path === "") return { type: "none" };
  if (path === "runtime/default" || path === "docker/default") return { type: "runtime-default" };
  if (path === "unconfined") return { type: "unconfined" };
  if (path.startsWith("localhost/")) return { type: "localhost", reference: path.slice("localhost/".length) };
  throw new InvalidArgumentError(field, `has the unknown deprecated form ${JSON.stringify(path)}: use the profile message`);
}

export function decodeSelinux(options: SELinuxOption | undefined): SelinuxOptions | undefined {
  if (options === undefined) return undefined;
  const { user, role, type, level } = options;
  return user === "" && role === "" && type === "" && level === "" ? undefined : { user, role, type, level };
}

const GROUPS_POLICIES: Readonly<Record<number, SupplementalGroupsPolicy>> = {
  [CriGroupsPolicy.Merge]: "merge",
  [CriGroupsPolicy.Strict]: "strict",
};

export function decodeGroupsPolicy(policy: number, field: string): SupplementalGroupsPolicy {
  return known(GROUPS_POLICIES, policy, field);
}

export function decodeGroups(groups: readonly bigint[], field: string): readonly number[] {
  return groups.map((group) => unixId(group, field));
}
