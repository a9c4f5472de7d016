import type { CapabilityChanges } from "../container-config.ts";
import { invalid } from "../errors.ts";
import type { OciCapabilities } from "./types.ts";

/** Every capability of Linux; the index is the kernel's number. Source: capabilities(7). */
export const CAPABILITIES: readonly string[] = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_DAC_READ_SEARCH",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETPCAP",
  "CAP_LINUX_IMMUTABLE",
  "CAP_NET_BIND_SERVICE",
  "CAP_NET_BROADCAST",
  "CAP_NET_ADMIN",
  "CAP_NET_RAW",
  "CAP_IPC_LOCK",
  "CAP_IPC_OWNER",
  "CAP_SYS_MODULE",
  "CAP_SYS_RAWIO",
  "CAP_SYS_CHROOT",
  "CAP_SYS_PTRACE",
  "CAP_SYS_PACCT",
  "CAP_SYS_ADMIN",
  "CAP_SYS_BOOT",
  "CAP_SYS_NICE",
  "CAP_SYS_RESOURCE",
  "CAP_SYS_TIME",
  "CAP_SYS_TTY_CONFIG",
  "CAP_MKNOD",
  "CAP_LEASE",
  "CAP_AUDIT_WRITE",
  "CAP_AUDIT_CONTROL",
  "CAP_SETFCAP",
  "CAP_MAC_OVERRIDE",
  "CAP_MAC_ADMIN",
  "CAP_SYSLOG",
  "CAP_WAKE_ALARM",
  "CAP_BLOCK_SUSPEND",
  "CAP_AUDIT_READ",
  "CAP_PERFMON",
  "CAP_BPF",
  "CAP_CHECKPOINT_RESTORE",
];

/** What a container has when nothing is added or dropped: the fourteen that images have come to expect of every runtime. */
const DEFAULTS: readonly string[] = [
  "CAP_AUDIT_WRITE",
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_MKNOD",
  "CAP_NET_BIND_SERVICE",
  "CAP_NET_RAW",
  "CAP_SETFCAP",
  "CAP_SETGID",
  "CAP_SETPCAP",
  "CAP_SETUID",
  "CAP_SYS_CHROOT",
];

/**
 * The capabilities of a container's first process, in the kernel's order. ALL is applied before single names, so that "add ALL, drop X" and
 * "drop ALL, add X" mean what they say. Inheritable and ambient stay empty unless asked for: what is inheritable may reach a program through
 * its file's capabilities.
 *
 * `available` is the daemon's own bounding set: nothing beyond it can be given.
 */
export function ociCapabilities(
  { privileged, capabilities }: { readonly privileged: boolean; readonly capabilities: CapabilityChanges },
  available: readonly string[],
): OciCapabilities {
  const all = CAPABILITIES.filter((name) => available.includes(name));
  if (privileged) return { bounding: all, effective: all, permitted: all, inheritable: [], ambient: [] };
  const missing = [...capabilities.add, ...capabilities.addAmbient].find((name) => name !== "ALL" && !all.includes(name));
  if (missing !== undefined) {
    throw invalid("config.linux.security_context.capabilities", `this node cannot give ${missing}: remove it, or let the daemon have it`);
  }
  const ambient = capabilities.addAmbient.includes("ALL") ? all : all.filter((name) => capabilities.addAmbient.includes(name));
  const granted = new Set([...withChanges(all, capabilities), ...ambient]);
  const list = all.filter((name) => granted.has(name));
  return { bounding: list, effective: list, permitted: list, inheritable: ambient, ambient };
}

function withChanges(all: readonly string[], { add, drop }: CapabilityChanges): ReadonlySet<string> {
  const granted = new Set(add.includes("ALL") ? all : DEFAULTS);
  if (drop.includes("ALL")) granted.clear();
  for (const name of add) if (name !== "ALL") granted.add(name);
  for (const name of drop) granted.delete(name);
  return granted;
}
