import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { join } from "node:path";

import { messageOf } from "../lib/coded-error.ts";
import { Dialer } from "./dialer.ts";
import { HostError } from "./errors.ts";
import { isAlive, type ProcessIdentity, readStartTime, terminate } from "./pids.ts";
import { run } from "./process.ts";
import { spawnDetached } from "./spawn-detached.ts";

export interface AuraedOptions {
  /** The auraed binary. */
  readonly auraedPath: string;
  /** An OCI runtime to use instead of auraed's own; empty: auraed's. */
  readonly ociRuntime: string;
}

interface Wait {
  readonly signal: AbortSignal;
}

const READY_TIMEOUT_MS = 10_000;
/** Bounds the one-shot helpers: killing a process that waits for a disk is what takes long. */
const HELPER_TIMEOUT_MS = 60_000;

/** The host's side of a pod: its auraed process, connections to its ports, and the one-shot helpers for what Node cannot do (unmount, kill a cgroup, delete a hostile tree). */
export class AuraedHost implements Disposable {
  readonly #options: AuraedOptions;
  readonly #dialer: Dialer;

  constructor(options: AuraedOptions) {
    this.#options = options;
    this.#dialer = new Dialer(options.auraedPath);
  }

  /** Starts `auraed pod` or `auraed vm` for the directory and returns when it listens on `<dir>/auraed.sock`. */
  startAuraed(dir: string, way: "pod" | "vm", { signal }: Wait): Promise<ProcessIdentity> {
    const { auraedPath, ociRuntime } = this.#options;
    // In a microVM containers are run by the guest's own.
    const args = [way, "--dir", dir, ...(way === "vm" || ociRuntime === "" ? [] : ["--oci-runtime", ociRuntime])];
    const command = { file: auraedPath, args, env: { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" }, cwd: "/" };
    return spawnDetached(command, { signal, readyTimeoutMs: READY_TIMEOUT_MS, logFile: join(dir, "auraed.log") });
  }

  /** The auraed that serves the directory, when one is alive: by its pid file, believed only when the process is that directory's. */
  findAuraed(dir: string): ProcessIdentity | undefined {
    try {
      const pid = Number(readFileSync(join(dir, "auraed.pid"), "utf8"));
      const startTime = Number.isSafeInteger(pid) && pid > 1 ? readStartTime(pid) : undefined;
      if (startTime === undefined) return undefined;
      const args = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      return (args[1] === "pod" || args[1] === "vm") && args.includes(dir) ? { pid, startTime } : undefined;
    } catch {
      // No pid file, or the process ended while we looked.
      return undefined;
    }
  }

  isAlive(process: ProcessIdentity): boolean {
    return isAlive(process);
  }

  kill(process: ProcessIdentity, options: Wait): Promise<void> {
    return terminate(process, options);
  }

  cleanPod(dir: string, cgroups: readonly string[], options: Wait): Promise<void> {
    return this.#helper(["clean-pod", "--dir", dir, ...cgroups.flatMap((path) => ["--cgroup", path])], options);
  }

  removeTree(path: string, options: Wait): Promise<void> {
    return this.#helper(["remove-tree", "--path", path], options);
  }

  dial(netnsPath: string, port: number, options: Wait): Promise<Socket> {
    return this.#dialer.dial(netnsPath, port, options);
  }

  /** Tries, on a small file system of its own, what a pod with a user namespace is made of. Never throws. */
  async userNamespaceSupport(
    stateDir: string,
  ): Promise<{ readonly supported: true } | { readonly supported: false; readonly reason: string }> {
    try {
      await this.#helper(["try-user-namespace", "--dir", stateDir], { signal: AbortSignal.timeout(HELPER_TIMEOUT_MS) });
      return { supported: true };
    } catch (error) {
      return { supported: false, reason: messageOf(error) };
    }
  }

  /** Pods go on. */
  [Symbol.dispose](): void {
    this.#dialer[Symbol.dispose]();
  }

  async #helper(args: readonly string[], { signal }: Wait): Promise<void> {
    const file = this.#options.auraedPath;
    const result = await run({ file, args: ["host", ...args] }, { signal, timeoutMs: HELPER_TIMEOUT_MS });
    if (result.exitCode === 0) return;
    const operation = args[0] ?? "";
    throw new HostError(
      { code: "ERR_AURAED_HOST", operation },
      `auraed host ${operation}: ${result.stderr.trim() || `ended by ${result.signal}`}`,
    );
  }
}
