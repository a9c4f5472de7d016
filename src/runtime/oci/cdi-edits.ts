import type { DeviceNode } from "../../host/devices.ts";
import type { ContainerUser } from "../container.ts";
import type { ContainerConfig, EnvVar, MountPropagation, MountRequest } from "../container-config.ts";
import type { CdiEdits, CdiMount } from "../ports.ts";
import type { OciHooks, OciMount } from "./types.ts";

/**
 * A container's configuration with what its CDI devices add to environment and mounts. Mounts keep their places; those of devices come
 * after them, and so lie over one at the same path.
 */
export function withCdi(config: ContainerConfig, edits: CdiEdits | undefined): ContainerConfig {
  if (edits === undefined) return config;
  const binds = edits.mounts.filter(({ type }) => type === "bind");
  return { ...config, env: [...config.env, ...edits.env.map(envVar)], mounts: [...config.mounts, ...binds.map(bindRequest)] };
}

/** `NAME=value`. */
function envVar(line: string): EnvVar {
  const end = line.indexOf("=");
  return { key: line.slice(0, end), value: line.slice(end + 1) };
}

const PROPAGATIONS: ReadonlyMap<string, MountPropagation> = new Map([
  ["private", "private"],
  ["rprivate", "private"],
  ["slave", "host-to-container"],
  ["rslave", "host-to-container"],
  ["shared", "bidirectional"],
  ["rshared", "bidirectional"],
]);

function bindRequest({ hostPath, containerPath, options }: CdiMount): MountRequest {
  const propagation = options.findLast((option) => PROPAGATIONS.has(option)) ?? "private";
  const spoken = (option: string): boolean => PROPAGATIONS.has(option) || ["bind", "rbind", "ro", "rw"].includes(option);
  return {
    containerPath,
    source: { type: "host", path: hostPath },
    readonly: options.findLast((option) => option === "ro" || option === "rw") === "ro" ? "yes" : "no",
    propagation: PROPAGATIONS.get(propagation) ?? "private",
    selinuxRelabel: false,
    options: options.filter((option) => !spoken(option)),
    uidMappings: [],
    gidMappings: [],
  };
}

/** File systems of their own that devices bring: nothing of the host is behind them. */
export function cdiFileSystems(edits: CdiEdits | undefined): readonly OciMount[] {
  const mounts = (edits?.mounts ?? []).filter(({ type }) => type !== "bind");
  return mounts.map(({ containerPath, hostPath, type, options }) => ({ destination: containerPath, type, source: hostPath, options }));
}

/** The requested nodes and those of CDI devices, which replace one at the same path. A node without an owner is the container's user's. */
export function withCdiNodes(requested: readonly DeviceNode[], edits: CdiEdits | undefined, user: ContainerUser): readonly DeviceNode[] {
  const byPath = new Map(requested.map((node) => [node.containerPath, node]));
  for (const { hostPath: _, ...node } of edits?.deviceNodes ?? []) {
    byPath.set(node.containerPath, { uid: user.uid, gid: user.gid, ...node });
  }
  return [...byPath.values()];
}

export function withCdiGroups(user: ContainerUser, edits: CdiEdits | undefined): ContainerUser {
  if (edits === undefined || edits.additionalGids.length === 0) return user;
  return { ...user, additionalGids: [...new Set([...user.additionalGids, ...edits.additionalGids])] };
}

export function cdiHooks(edits: CdiEdits | undefined): OciHooks | undefined {
  if (edits === undefined || edits.hooks.length === 0) return undefined;
  const byName = Map.groupBy(edits.hooks, ({ name }) => name);
  return Object.fromEntries(
    [...byName].map(([name, hooks]) => [
      name,
      // As `execve` has it, args begin with the program's name; CDI leaves that to whoever writes them.
      hooks.map(({ path, args, env, timeoutSec }) => ({ path, args, env, ...(timeoutSec === undefined ? {} : { timeout: timeoutSec }) })),
    ]),
  );
}
