import { readdir, readFile } from "node:fs/promises";

import { statusOf } from "./machine.ts";

/** What a process holds. */
export interface Footprint {
  readonly descriptors: number;
  readonly children: number;
  readonly residentMiB: number;
}

export async function footprintOf(pid: number): Promise<Footprint> {
  const descriptors = (await readdir(`/proc/${pid}/fd`)).length;
  const tasks = await readdir(`/proc/${pid}/task`);
  const lists = await Promise.all(tasks.map((task) => readFile(`/proc/${pid}/task/${task}/children`, "utf8").catch(() => "")));
  const children = lists
    .join(" ")
    .split(" ")
    .filter((child) => child !== "").length;
  const resident = /^(\d+) kB$/.exec((await statusOf(pid))["VmRSS"]?.trim() ?? "")?.[1];
  return { descriptors, children, residentMiB: Math.round(Number(resident) / 1024) };
}
