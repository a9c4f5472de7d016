import { isIP } from "node:net";

import {
  type DNSConfig,
  type LinuxSandboxSecurityContext,
  type PodSandboxConfig,
  type PodSandboxMetadata,
  type PortMapping,
  Protocol,
} from "../../../api/gen/cri/v1/api.ts";
import type { DnsConfig, SandboxConfig, SandboxMetadata, SandboxPortMapping } from "../../runtime/sandbox-config.ts";
import { InvalidArgumentError } from "../errors.ts";
import { known, optionalPath, requireId, requireMessage, sortedMap, unixId } from "./fields.ts";
import { decodeResources } from "./resources.ts";
import { decodeApparmor, decodeGroups, decodeGroupsPolicy, decodeNamespaces, decodeSeccomp, decodeSelinux } from "./security.ts";

/** Decodes and checks `RunPodSandboxRequest.config`. Throws `InvalidArgumentError` with the field's path. */
export function decodeSandboxConfig(message: PodSandboxConfig | undefined): SandboxConfig {
  const config = requireMessage(message, "config");
  if (config.windows !== undefined) throw new InvalidArgumentError("config.windows", "must be absent: this node runs Linux");
  const { linux } = config;
  const context = linux?.securityContext;
  const security = "config.linux.security_context";
  const namespaces = decodeNamespaces(context?.namespaceOptions, `${security}.namespace_options`);
  if (namespaces.pid === "target")
    throw new InvalidArgumentError(`${security}.namespace_options.pid`, "must not be TARGET: a sandbox has no target container");
  return {
    metadata: decodeMetadata(config.metadata),
    hostname: config.hostname,
    logDirectory: optionalPath(config.logDirectory, "config.log_directory"),
    dns: config.dnsConfig && decodeDns(config.dnsConfig),
    portMappings: config.portMappings.map(decodePortMapping),
    labels: sortedMap(config.labels),
    annotations: sortedMap(config.annotations),
    cgroupParent: linux?.cgroupParent ?? "",
    sysctls: decodeSysctls(linux?.sysctls ?? {}),
    namespaces,
    privileged: context?.privileged ?? false,
    seccomp: decodeSeccomp(context?.seccomp, context?.seccompProfilePath ?? "", security),
    apparmor: decodeApparmor(context?.apparmor, "", security),
    selinux: decodeSelinux(context?.selinuxOptions),
    ...decodeIdentity(context, security),
    readonlyRootfs: context?.readonlyRootfs ?? false,
    overhead: linux?.overhead === undefined ? undefined : decodeResources(linux.overhead, "config.linux.overhead"),
    resources: linux?.resources === undefined ? undefined : decodeResources(linux.resources, "config.linux.resources"),
  };
}

function decodeMetadata(message: PodSandboxMetadata | undefined): SandboxMetadata {
  const { name, uid, namespace, attempt } = requireMessage(message, "config.metadata");
  // A client takes a status without one of these for a broken reply.
  return {
    name: requireId(name, "config.metadata.name"),
    uid: requireId(uid, "config.metadata.uid"),
    namespace: requireId(namespace, "config.metadata.namespace"),
    attempt,
  };
}

function decodeDns({ servers, searches, options }: DNSConfig): DnsConfig {
  return { servers, searches, options };
}

const PROTOCOLS = { [Protocol.TCP]: "tcp", [Protocol.UDP]: "udp", [Protocol.SCTP]: "sctp" } as const;

const MAX_PORT = 65_535;

function decodePortMapping(mapping: PortMapping, index: number): SandboxPortMapping {
  const field = `config.port_mappings[${index}]`;
  const { containerPort, hostPort, hostIp } = mapping;
  for (const [name, port] of [
    ["container_port", containerPort],
    ["host_port", hostPort],
  ] as const) {
    if (port < 0 || port > MAX_PORT) throw new InvalidArgumentError(`${field}.${name}`, `must be between 0 and ${MAX_PORT}, is ${port}`);
  }
  if (hostPort !== 0 && containerPort === 0) throw new InvalidArgumentError(`${field}.container_port`, "must be set when host_port is");
  if (hostIp !== "" && isIP(hostIp) === 0)
    throw new InvalidArgumentError(`${field}.host_ip`, `${JSON.stringify(hostIp)} is not an IP address`);
  return { protocol: known<"tcp" | "udp" | "sctp">(PROTOCOLS, mapping.protocol, `${field}.protocol`), containerPort, hostPort, hostIp };
}

/** The kernel's key grammar, dots or slashes between the parts; auraed checks that the key belongs to a namespace of the pod. */
function decodeSysctls(sysctls: { readonly [key: string]: string }): Readonly<Record<string, string>> {
  for (const [key, value] of Object.entries(sysctls)) {
    if (!/^[a-z0-9_-]+([./][a-zA-Z0-9_:@%-]+)+$/.test(key))
      throw new InvalidArgumentError("config.linux.sysctls", `has the malformed key ${JSON.stringify(key)}`);
    if (/[\0\n\r+]/.test(value))
      throw new InvalidArgumentError(`config.linux.sysctls[${key}]`, "must be one line without control characters or '+'");
  }
  return sortedMap(sysctls);
}

function decodeIdentity(context: LinuxSandboxSecurityContext | undefined, field: string) {
  const runAsUser = context?.runAsUser && unixId(context.runAsUser.value, `${field}.run_as_user`);
  const runAsGroup = context?.runAsGroup && unixId(context.runAsGroup.value, `${field}.run_as_group`);
  if (runAsGroup !== undefined && runAsUser === undefined) {
    throw new InvalidArgumentError(`${field}.run_as_group`, "needs run_as_user to be set too");
  }
  return {
    runAsUser,
    runAsGroup,
    supplementalGroups: decodeGroups(context?.supplementalGroups ?? [], `${field}.supplemental_groups`),
    supplementalGroupsPolicy: decodeGroupsPolicy(context?.supplementalGroupsPolicy ?? 0, `${field}.supplemental_groups_policy`),
  };
}
