import { readFileSync } from "node:fs";

/** The kernel's random id of this boot. What was recorded under another one (pids, mounts, namespaces) is gone. */
export function readBootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
}
