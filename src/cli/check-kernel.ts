import { existsSync } from "node:fs";
import { release } from "node:os";
import { dirname } from "node:path";

import { AuraedHost } from "../host/auraed.ts";
import { type CgroupDriver, detectCgroups, isSystemdRunning, pickCgroupDriver } from "../host/cgroups.ts";
import { fileSystemSupport, openFailure } from "../host/node-facts.ts";
import type { CheckResult } from "./check.ts";

/** Without these a pod's limits are words. */
const NEEDED_CONTROLLERS = ["cpu", "memory", "pids"];

export async function checkCgroups(setting: "auto" | CgroupDriver): Promise<CheckResult> {
  const { version, controllers } = await detectCgroups();
  const driver = pickCgroupDriver(setting, { systemdRunning: isSystemdRunning() });
  const missing = NEEDED_CONTROLLERS.filter((name) => !controllers.includes(name));
  const found = `${version}, driver ${driver}, controllers ${controllers.join(" ")}`;
  if (missing.length === 0) return { status: "ok", found };
  return {
    status: "failed",
    found: `${found}; missing ${missing.join(" ")}`,
    fix: `boot with 'cgroup_enable=${missing[0]}' on the kernel's command line, or a kernel that has these controllers`,
  };
}

/** `without`: what cannot be done then. */
export async function checkFileSystem(type: string, without: string): Promise<CheckResult> {
  switch (await fileSystemSupport(type)) {
    case "present":
      return { status: "ok", found: `kernel ${release()} has it` };
    case "loadable":
      return { status: "ok", found: `a module of kernel ${release()}, loaded when it is needed` };
    case "missing":
      return { status: "failed", found: `kernel ${release()} does not have it: ${without}`, fix: `modprobe ${type}, or a kernel with it` };
  }
}

/** Only kernels that cannot mount EROFS from a file need them. */
export async function checkLoop(): Promise<CheckResult> {
  const failure = await openFailure("/dev/loop-control");
  if (failure === undefined) return { status: "ok", found: "/dev/loop-control can be opened" };
  return {
    status: "warn",
    found: `/dev/loop-control cannot be opened (${failure}): images then need a kernel that mounts EROFS from a file (6.12 or later)`,
    fix: failure === "ENOENT" ? "modprobe loop" : "run as root, with access to /dev/loop-control",
  };
}

/** The daemon's own trial, at the state directory or what there is of the way to it. */
export async function checkUserNamespaces(auraedPath: string, stateDir: string): Promise<CheckResult> {
  const support = await new AuraedHost({ auraedPath, ociRuntime: "" }).userNamespaceSupport(nearestDir(stateDir));
  if (support.supported) return { status: "ok", found: "pods can have them (hostUsers: false)" };
  return {
    status: "warn",
    found: `pods cannot have them: ${support.reason}`,
    fix: "a kernel of 6.5 or later, 'sysctl user.max_user_namespaces=16384', and 'chmod o+x' for the directories above the configuration's state",
  };
}

function nearestDir(path: string): string {
  return existsSync(path) || path === "/" ? path : nearestDir(dirname(path));
}
