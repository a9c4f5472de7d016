import { dirname } from "node:path";

import { HostError } from "./errors.ts";
import { readMountinfo } from "./mountinfo.ts";
import { run } from "./process.ts";

export interface LayerMountsOptions {
  /** The auraed binary. */
  readonly auraedPath: string;
}

interface Wait {
  readonly signal: AbortSignal;
}

/** A mount waits for nothing but the disk. */
const HELPER_TIMEOUT_MS = 60_000;

/** Mounts image layers through auraed: Node cannot mount. */
export class LayerMounts {
  readonly #options: LayerMountsOptions;

  constructor(options: LayerMountsOptions) {
    this.#options = options;
  }

  /** Mounts an EROFS blob read-only at an existing directory. */
  mount(blob: string, target: string, options: Wait): Promise<void> {
    return this.#helper(["mount-layer", "--blob", blob, "--target", target], options);
  }

  /** Nothing mounted there is success. */
  async unmount(target: string, options: Wait): Promise<void> {
    if ((await this.mounted(dirname(target))).includes(target)) await this.#helper(["unmount", "--target", target], options);
  }

  /** The mount points right below `dir`. */
  async mounted(dir: string): Promise<readonly string[]> {
    const mounts = await readMountinfo();
    return mounts.map((mount) => mount.mountPoint).filter((mountPoint) => dirname(mountPoint) === dir);
  }

  async #helper(args: readonly string[], { signal }: Wait): Promise<void> {
    const result = await run({ file: this.#options.auraedPath, args: ["host", ...args] }, { signal, timeoutMs: HELPER_TIMEOUT_MS });
    if (result.exitCode === 0) return;
    const operation = args[0] ?? "";
    const detail = result.stderr.trim() || (result.signal === undefined ? `exit code ${result.exitCode}` : `ended by ${result.signal}`);
    throw new HostError({ code: "ERR_AURAED_HOST", operation }, `auraed host ${operation}: ${detail}`);
  }
}
