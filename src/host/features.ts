import { readFile } from "node:fs/promises";
import { release } from "node:os";

/** What this kernel offers, read without side effects in a few milliseconds. */
export interface HostFeatures {
  readonly kernelRelease: string;
  readonly userNamespaces: boolean;
  readonly seccomp: boolean;
  readonly overlayfs: boolean;
  readonly erofs: boolean;
  readonly appArmor: boolean;
  readonly seLinux: boolean;
  /** CAP_SYS_RESOURCE in our effective set: without it oom_score_adj cannot be lowered nor hard rlimits raised. */
  readonly sysResource: boolean;
}

const CAP_SYS_RESOURCE = 24n;

/** Modules not loaded yet are not listed in /proc/filesystems: false means "not now", not "never". */
export async function probeHost(): Promise<HostFeatures> {
  const [maxUserNamespaces, seccompActions, fileSystems, appArmor, seLinux, status] = await Promise.all(
    [
      "/proc/sys/user/max_user_namespaces",
      "/proc/sys/kernel/seccomp/actions_avail",
      "/proc/filesystems",
      "/sys/module/apparmor/parameters/enabled",
      "/sys/fs/selinux/enforce",
      "/proc/self/status",
    ].map((path) => readFile(path, "utf8").catch(() => "")),
  );
  const types = new Set((fileSystems ?? "").split("\n").map((line) => line.split("\t").at(-1)));
  const effective = /^CapEff:\t([0-9a-f]+)$/m.exec(status ?? "")?.[1] ?? "0";
  return {
    kernelRelease: release(),
    userNamespaces: Number(maxUserNamespaces) > 0,
    seccomp: (seccompActions ?? "").includes("errno"),
    overlayfs: types.has("overlay"),
    erofs: types.has("erofs"),
    appArmor: (appArmor ?? "").startsWith("Y"),
    seLinux: seLinux !== "",
    sysResource: ((BigInt(`0x${effective}`) >> CAP_SYS_RESOURCE) & 1n) === 1n,
  };
}
