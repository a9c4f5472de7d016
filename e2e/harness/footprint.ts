import { readdir } from "node:fs/promises";

import { statusOf } from "./machine.ts";

/** What a process holds. */
export interface Footprint {
  readonly descriptors: number;
  readonly residentMiB: number;
}

export async function footprintOf(pid: number): Promise<Footprint> {
  const descriptors = (await readdir(`/proc/${pid}/fd`)).length;
  const resident = /^(\d+) kB$/.exec((await statusOf(pid))["VmRSS"]?.trim() ?? "")?.[1];
  return { descriptors, residentMiB: Math.round(Number(resident) / 1024) };
}
