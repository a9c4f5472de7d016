import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { unreachable } from "../lib/coded-error.ts";
import { HostError } from "./errors.ts";
import { type Mount, readMountinfo } from "./mountinfo.ts";

/**
 * Where the host's control groups are mounted. `hybrid` is v1 controllers beside a cgroup2 tree; pods are then accounted in v1, as
 * runc and the kubelet do.
 */
export interface CgroupLayout {
  readonly version: "v1" | "hybrid" | "v2";
  /** v1 and hybrid: mount point by controller, named hierarchies as `name=…`. Co-mounted controllers share one. Empty on v2. */
  readonly controllerMounts: ReadonlyMap<string, string>;
  /** Mount point of the cgroup2 tree; undefined on v1. */
  readonly unifiedMount: string | undefined;
  /** Controllers usable for pods, sorted. */
  readonly controllers: readonly string[];
}

/** Super options of a v1 mount that are not controllers. */
const V1_OPTIONS = /^(rw|ro|xattr|clone_children|noprefix|cpuset_v2_mode|favordynmods|nofavordynmods|seclabel|release_agent=.*)$/;

/** From the mounts below /sys/fs/cgroup. `readControllers` reads the cgroup.controllers file of a cgroup2 mount point. */
export function layoutOf(mounts: readonly Mount[], readControllers: (mountPoint: string) => string): CgroupLayout {
  const controllerMounts = new Map<string, string>();
  let unifiedMount: string | undefined;
  for (const mount of mounts) {
    if (!isBelow("/sys/fs/cgroup", mount.mountPoint)) continue;
    if (mount.fsType === "cgroup2") unifiedMount ??= mount.mountPoint;
    if (mount.fsType !== "cgroup") continue;
    for (const option of mount.superOptions) {
      if (!V1_OPTIONS.test(option) && !controllerMounts.has(option)) controllerMounts.set(option, mount.mountPoint);
    }
  }
  const v1 = [...controllerMounts.keys()].filter((name) => !name.startsWith("name="));
  if (v1.length === 0) {
    if (unifiedMount === undefined) {
      throw new HostError({ code: "ERR_CGROUP_NONE" }, "no control groups are mounted below /sys/fs/cgroup: mount cgroup2 there");
    }
    const controllers = readControllers(unifiedMount)
      .split(/\s+/)
      .filter((name) => name !== "")
      .sort();
    return { version: "v2", controllerMounts: new Map(), unifiedMount, controllers };
  }
  return { version: unifiedMount === undefined ? "v1" : "hybrid", controllerMounts, unifiedMount, controllers: v1.sort() };
}

export async function detectCgroups(): Promise<CgroupLayout> {
  return layoutOf(await readMountinfo(), (mountPoint) => readFileSync(join(mountPoint, "cgroup.controllers"), "utf8"));
}

/** Absolute directory of a cgroup under the hierarchy of `controller`; undefined when the host has no such controller. */
export function cgroupDirectory(layout: CgroupLayout, controller: string, path: string): string | undefined {
  const mountPoint = layout.version === "v2" ? layout.unifiedMount : layout.controllerMounts.get(controller);
  return mountPoint === undefined ? undefined : join(mountPoint, path);
}

export type CgroupDriver = "cgroupfs" | "systemd";

/** True when systemd is pid 1 of this host: the test of sd_booted(3). */
export function isSystemdRunning(): boolean {
  return existsSync("/run/systemd/system");
}

/** Two managers of one tree fight: where systemd runs it is the one, unless the operator says otherwise. */
export function pickCgroupDriver(setting: "auto" | CgroupDriver, options: { readonly systemdRunning: boolean }): CgroupDriver {
  switch (setting) {
    case "auto":
      return options.systemdRunning ? "systemd" : "cgroupfs";
    case "cgroupfs":
      return "cgroupfs";
    case "systemd":
      if (options.systemdRunning) return "systemd";
      throw new HostError(
        { code: "ERR_CGROUP_DRIVER", driver: setting },
        "cgroup driver 'systemd' is asked for but systemd does not run here (no /run/systemd/system): use 'cgroupfs' or 'auto'",
      );
    default:
      return unreachable(setting);
  }
}

function isBelow(directory: string, path: string): boolean {
  return path === directory || path.startsWith(`${directory}/`);
}
