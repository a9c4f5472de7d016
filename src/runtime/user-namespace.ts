import type { ContainerConfig, MountRequest } from "./container-config.ts";
import { invalid, RuntimeError } from "./errors.ts";
import type { IdMapping, SandboxConfig, UserNamespace } from "./sandbox-config.ts";

/** Whether pods of this node can have user namespaces; `reason` says why not. */
export type UserNamespaceSupport = { readonly supported: true } | { readonly supported: false; readonly reason: string };

const SANDBOX = "config.linux.security_context";
const CONTAINER = "config.linux.security_context.namespace_options";

/** Refuses a sandbox whose user namespace is impossible, or would not be worth its name. */
export function checkPodUserNamespace({ namespaces, privileged }: SandboxConfig, support: UserNamespaceSupport): void {
  if (namespaces.user === undefined) return;
  if (!support.supported) {
    const message = `${SANDBOX}.namespace_options.userns_options: this node cannot give pods user namespaces: ${support.reason}`;
    throw new RuntimeError({ code: "ERR_PLACEMENT", reason: "NoUserNamespaces" }, message);
  }
  if (privileged) throw invalid(`${SANDBOX}.privileged`, "cannot be had in a user namespace: remove it or userns_options");
  if (namespaces.pid === "node") {
    throw invalid(`${SANDBOX}.namespace_options.pid`, "is NODE, whose /proc cannot be mounted in a user namespace: use POD or CONTAINER");
  }
}

/** Refuses a container that asks for another user namespace than its sandbox, for itself or for its mounts. */
export function checkContainerUserNamespace({ security, mounts }: ContainerConfig, { namespaces }: SandboxConfig): void {
  const { user } = namespaces;
  if (!sameUsers(security.namespaces.user, user)) {
    const sandbox = user === undefined ? "NODE" : `POD with ${told(user)}`;
    throw invalid(`${CONTAINER}.userns_options`, `must be the sandbox's, which is ${sandbox}`);
  }
  for (const [index, mount] of mounts.entries()) checkMount(mount, `config.mounts[${index}]`, user);
}

function checkMount({ uidMappings, gidMappings, propagation }: MountRequest, field: string, user: UserNamespace | undefined): void {
  if (user !== undefined && propagation === "bidirectional") {
    throw invalid(
      `${field}.propagation`,
      "is BIDIRECTIONAL, but nothing mounted in a user namespace reaches the host: use HOST_TO_CONTAINER",
    );
  }
  if (uidMappings.length + gidMappings.length === 0) return;
  if (user === undefined) throw invalid(`${field}.uidMappings`, "need a pod with a user namespace: remove uidMappings and gidMappings");
  if (!isOnly(uidMappings, user.uids)) throw invalid(`${field}.uidMappings`, `must be the pod's, which are ${told(user)}`);
  if (!isOnly(gidMappings, user.gids)) throw invalid(`${field}.gidMappings`, `must be the pod's, which are ${told(user)}`);
}

function sameUsers(one: UserNamespace | undefined, other: UserNamespace | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return isOnly([one.uids], other.uids) && isOnly([one.gids], other.gids);
}

function isOnly([line, ...more]: readonly IdMapping[], { containerId, hostId, length }: IdMapping): boolean {
  return more.length === 0 && line?.containerId === containerId && line.hostId === hostId && line.length === length;
}

function told({ uids, gids }: UserNamespace): string {
  const line = ({ containerId, hostId, length }: IdMapping) => `${containerId}:${hostId}:${length}`;
  return `uids ${line(uids)} and gids ${line(gids)}`;
}

/** The mappings as auraed takes them; none: the host's user namespace. */
export function agentMappings(user: UserNamespace | undefined) {
  const lines = (mapping: IdMapping | undefined) =>
    mapping === undefined ? [] : [{ containerId: mapping.containerId, hostId: mapping.hostId, size: mapping.length }];
  return { uidMappings: lines(user?.uids), gidMappings: lines(user?.gids) };
}
