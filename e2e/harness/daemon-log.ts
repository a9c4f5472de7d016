import { readFile } from "node:fs/promises";
import { join } from "node:path";

import type { Prefix } from "./prefix.ts";

/** A line of our daemon's log: the fields that tests look at. */
export interface LogEntry {
  readonly time: string;
  readonly level: string;
  readonly message: string;
  readonly detail?: string;
  readonly podId?: string;
  readonly mode?: string;
  readonly reason?: string;
  readonly path?: string;
  readonly problem?: string;
}

/** What the daemon has logged since its last start. */
export async function daemonLog(prefix: Prefix): Promise<readonly LogEntry[]> {
  const lines = (await readFile(join(prefix.dir, "daemon.log"), "utf8")).split("\n").filter((line) => line.startsWith("{"));
  const entries = lines.map((line) => JSON.parse(line) as LogEntry);
  return entries.slice(entries.findLastIndex(({ message }) => message === "starting"));
}
