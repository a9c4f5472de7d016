import { statfs } from "node:fs/promises";
import { connect } from "node:net";
import { dirname } from "node:path";

import { RUNTIME_NAME } from "../lib/version.ts";
import type { CheckResult } from "./check.ts";
import { CriClient } from "./cri-client.ts";

const GIB = 2 ** 30;
/** Less is not enough to pull an image of common size. */
const LOW_SPACE_BYTES = 4 * GIB;
const NO_SPACE_BYTES = GIB / 4;

export function checkRoot(): CheckResult {
  const uid = process.geteuid?.() ?? -1;
  if (uid === 0) return { status: "ok", found: "running as root" };
  return { status: "failed", found: `running as uid ${uid}: namespaces, mounts and cgroups need root`, fix: "sudo aurae-cri check" };
}

/** Of the file system that holds the root directory, which need not be there yet. */
export async function checkSpace(rootDir: string): Promise<CheckResult> {
  const { dir, freeBytes, totalBytes } = await spaceOf(rootDir);
  const found = `${gib(freeBytes)} of ${gib(totalBytes)} free at ${dir}`;
  if (freeBytes > LOW_SPACE_BYTES) return { status: "ok", found };
  const fix = "crictl rmi --prune, or a larger file system at the configuration's root";
  return { status: freeBytes > NO_SPACE_BYTES ? "warn" : "failed", found, fix };
}

async function spaceOf(path: string): Promise<{ readonly dir: string; readonly freeBytes: number; readonly totalBytes: number }> {
  try {
    const { bavail, blocks, bsize } = await statfs(path);
    return { dir: path, freeBytes: bavail * bsize, totalBytes: blocks * bsize };
  } catch (error) {
    if (path !== "/" && error instanceof Error && "code" in error && error.code === "ENOENT") return spaceOf(dirname(path));
    throw error;
  }
}

function gib(bytes: number): string {
  return `${(bytes / GIB).toFixed(1)} GiB`;
}

/** Free, ours, or somebody else's. */
export async function checkListen(socketPath: string): Promise<CheckResult> {
  if (!(await isServed(socketPath))) return { status: "ok", found: `nobody serves ${socketPath}: free for a daemon` };
  using client = new CriClient(socketPath);
  const answer = await client.version();
  if (answer.kind === "answer" && answer.response.runtimeName === RUNTIME_NAME) {
    return { status: "ok", found: `${RUNTIME_NAME} ${answer.response.runtimeVersion} serves ${socketPath}` };
  }
  const other = answer.kind === "answer" ? `${answer.response.runtimeName} serves it` : "what serves it does not answer as a CRI runtime";
  return {
    status: "failed",
    found: `${socketPath} is in use: ${other}`,
    fix: `stop it (ss -xlp | grep ${socketPath}), or set another 'listen'`,
  };
}

async function isServed(socketPath: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const probe = connect(socketPath);
  probe.once("connect", () => resolve(true));
  probe.once("error", () => resolve(false));
  const served = await promise;
  probe.destroy();
  return served;
}
