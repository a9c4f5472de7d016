import type { CapabilityChanges } from "./container-config.ts";
import type { OciCapabilities } from "./oci-types.ts";

/** Every capability of Linux 6.x, in numerical order. Source: capabilities(7). */
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

/** What a container has that asks for nothing: the same fourteen as with the other runtimes. */
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
 * `available` is what the daemon itself may give: a privileged container gets all of it. ALL is applied before single names, so that "drop ALL,
 * add NET_ADMIN" and "add ALL, drop NET_ADMIN" both mean what they say.
 */
export function ociCapabilities(changes: CapabilityChanges, options: { readonly privileged: boolean; readonly available: readonly string[] }): OciCapabilities {
  const granted = options.privileged ? new Set(options.available) : grantedBy(changes, options.available);
  const list = CAPABILITIES.filter((name) => granted.has(name));
  const ambient = options.privileged ? [] : changes.addAmbient.filter((name) => granted.has(name));
  return { bounding: list, effective: list, permitted: list, inheritable: ambient, ambient };
}

function grantedBy({ add, drop, addAmbient }: CapabilityChanges, available: readonly string[]): Set<string> {
  let granted = new Set(DEFAULTS);
  if (add.includes("ALL")) granted = new Set(available);
  if (drop.includes("ALL")) granted = new Set(add.includes("ALL") ? available : []);
  for (const name of [...add, ...addAmbient]) if (name !== "ALL") granted.add(name);
  for (const name of drop) granted.delete(name);
  return granted;
}
