import { existsSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { makeCgroup } from "../harness/cgroup.ts";

const root = "/sys/fs/cgroup";

/**
 * The CPU time of a daemon, its helpers and its pods. The daemon is put into `<parent>/daemon` before it does any work, what it starts inherits
 * that, and the pods are given `<parent>/pods` as their cgroup parent; a cgroup's account includes what its members and removed children used.
 */
export class CpuAccount {
  /** What the pods' `cgroup_parent` must be. */
  readonly podsParent: string;
  readonly #dir: string;

  private constructor(dir: string, podsParent: string) {
    this.#dir = dir;
    this.podsParent = podsParent;
  }

  static async open(parent: string, daemonPid: number): Promise<CpuAccount> {
    const dir = join(await hierarchy(), parent);
    await makeCgroup(`${parent}/daemon`);
    await makeCgroup(`${parent}/pods`);
    await writeFile(join(dir, "daemon", "cgroup.procs"), String(daemonPid));
    return new CpuAccount(dir, `${parent}/pods`);
  }

  async usedMs(): Promise<number> {
    const v1 = join(this.#dir, "cpuacct.usage");
    if (existsSync(v1)) return Number(await readFile(v1, "utf8")) / 1e6;
    const microseconds = /^usage_usec (\d+)$/m.exec(await readFile(join(this.#dir, "cpu.stat"), "utf8"))?.[1];
    return Number(microseconds) / 1e3;
  }
}

/** The v1 hierarchy that counts CPU time, else the unified one. */
async function hierarchy(): Promise<string> {
  for (const name of await readdir(root)) {
    if (existsSync(join(root, name, "cpuacct.usage"))) return join(root, name);
  }
  return root;
}
