import type { OciSeccomp, OciSyscallRule } from "../types.ts";
import { SYSCALLS, SYSCALLS_BY_ARCH, SYSCALLS_BY_CAPABILITY, words } from "./syscalls.ts";

/** By `process.arch`: the processor's own calls and those of the older processes it still runs. */
const ARCHITECTURES: Readonly<Record<string, readonly string[]>> = {
  x64: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
  arm64: ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
};

const EPERM = 1;
const ENOSYS = 38;

/** Every CLONE_NEW… flag: new namespaces, a user namespace first of all, open most of the kernel's privileged code. */
const CLONE_NAMESPACES = 0x7e02_0000;

/** Linux, its 32-bit and old-version faces, and the query; not ADDR_NO_RANDOMIZE and the other flags that weaken a process. */
const PERSONALITIES = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/** Sockets of this family reach the host from a guest, past the pod's network. */
const AF_VSOCK = 40;

/**
 * The filter behind RuntimeDefault: an allow-list, wider for each capability the container has. What is not listed fails with EPERM, as
 * programs expect of a container.
 */
export function defaultProfile(arch: string, capabilities: ReadonlySet<string>): OciSeccomp {
  const architectures = ARCHITECTURES[arch];
  return {
    defaultAction: "SCMP_ACT_ERRNO",
    defaultErrnoRet: EPERM,
    ...(architectures === undefined ? {} : { architectures }),
    syscalls: [{ names: allowedNames(arch, capabilities), action: "SCMP_ACT_ALLOW" }, ...narrowRules(capabilities)],
  };
}

function allowedNames(arch: string, capabilities: ReadonlySet<string>): readonly string[] {
  const granted = Object.entries(SYSCALLS_BY_CAPABILITY).filter(([capability]) => capabilities.has(capability));
  const names = [...Object.values(SYSCALLS), SYSCALLS_BY_ARCH[arch] ?? "", ...granted.map(([, list]) => list)].flatMap(words);
  return [...new Set(names)].sort();
}

/** Calls that are allowed with some arguments only. */
function narrowRules(capabilities: ReadonlySet<string>): readonly OciSyscallRule[] {
  const rules: OciSyscallRule[] = PERSONALITIES.map((value) => ({
    names: ["personality"],
    action: "SCMP_ACT_ALLOW",
    args: [{ index: 0, value, op: "SCMP_CMP_EQ" }],
  }));
  rules.push({ names: ["socket"], action: "SCMP_ACT_ALLOW", args: [{ index: 0, value: AF_VSOCK, op: "SCMP_CMP_NE" }] });
  if (!capabilities.has("CAP_SYS_ADMIN")) {
    const args = [{ index: 0, value: CLONE_NAMESPACES, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }];
    rules.push({ names: ["clone"], action: "SCMP_ACT_ALLOW", args });
    // Its flags lie in memory that a filter cannot read. "No such call" makes C libraries fall back to clone.
    rules.push({ names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: ENOSYS });
  }
  return rules;
}
