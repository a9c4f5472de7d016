import { createHash } from "node:crypto";
import { createReadStream, createWriteStream, existsSync } from "node:fs";
import { mkdir, mkdtemp, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";

import { runUntil } from "../host/run-until.ts";
import { syncDirectory } from "../lib/atomic-write.ts";
import type { Log } from "../lib/log.ts";
import type { BootParts } from "./boot-parts.ts";
import type { MachineDescription, Wiring } from "./description.ts";
import { templateError } from "./errors.ts";
import type { GuestPart } from "./guest-files.ts";
import { qemuArgs } from "./qemu-args.ts";
import { saveMachine } from "./save-machine.ts";
import { sumFile } from "./sum-file.ts";

/** Changes with what a template is, besides QEMU, its arguments and the guest's files. */
const FORMAT_VERSION = 2;
/** Pods have few sizes, and a template takes 30 to 100 MiB. */
const KEPT = 8;
/** KEY.SHA256.state */
const statePattern = /^([0-9a-f]{16}-[0-9a-f]{16})\.([0-9a-f]{64})\.state$/;
const UNFINISHED_PREFIX = "new-";
/** A boot under emulation on a busy node, and the writing of what the guest has used. */
const TIMEOUT_MS = 60_000;
/** What the guest's auraed prints when the machine can be saved. */
const SIGN = /^auraed init: waits to be restored\b/;

/** The machine that is asked for, in any beginning, and what it starts from. */
export interface Blueprint {
  readonly machine: MachineDescription;
  readonly parts: BootParts;
}

/**
 * Machines that were booted once and saved before they were anybody's, one for each size that pods have: DIR/KEY.SHA256.state, where the key is
 * of everything that a machine begins with, and the sum of the state. Made in the background, one attempt in a daemon's life; without one a machine boots.
 */
export class MachineTemplates implements AsyncDisposable {
  readonly #dir: string;
  readonly #log: Log;
  readonly #closing = new AbortController();
  /** Paths by key, the one that was not used for longest first. */
  readonly #ready = new Map<string, string>();
  readonly #tried = new Set<string>();
  /** What is being made. */
  #work: Promise<void> | undefined;

  private constructor(dir: string, log: Log) {
    this.#dir = dir;
    this.#log = log;
  }

  /** Finds what is whole, and removes what an earlier daemon did not finish and what is damaged. */
  static async open(dir: string, modules: { readonly log: Log }): Promise<MachineTemplates> {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const templates = new MachineTemplates(dir, modules.log);
    for (const name of await readdir(dir)) await templates.#take(name);
    return templates;
  }

  async #take(name: string): Promise<void> {
    const path = join(this.#dir, name);
    const [, key = "", sha256] = statePattern.exec(name) ?? [];
    const isState = sha256 !== undefined;
    // QEMU would go on from a damaged page as if nothing were.
    if (isState && (await sumState(path, this.#closing.signal).catch(() => undefined)) === sha256) {
      this.#ready.set(key, path);
      return;
    }
    if (isState) this.#log.warn("a template is damaged and is removed: the next microVM of its size boots, and another is made", { path });
    await rm(path, { recursive: true, force: true });
  }

  /** Path of the saved state that this machine can go on from. */
  find(blueprint: Blueprint): string | undefined {
    const key = templateKey(blueprint);
    const path = this.#ready.get(key);
    if (path === undefined) return undefined;
    this.#ready.delete(key);
    if (existsSync(path)) {
      this.#ready.set(key, path);
      return path;
    }
    // An operator removed it: the next one is made.
    this.#tried.delete(key);
    return undefined;
  }

  /** Makes one behind the caller's back, unless that was tried before. One at a time: while another is made, a later machine of this size asks again. */
  want(blueprint: Blueprint): void {
    const key = templateKey(blueprint);
    const { signal } = this.#closing;
    if (this.#ready.has(key) || this.#tried.has(key) || this.#work !== undefined || signal.aborted) return;
    this.#tried.add(key);
    this.#work = this.#make(key, blueprint, signal).finally(() => {
      this.#work = undefined;
    });
  }

  /** No machine goes on from it any more. */
  async giveUp(blueprint: Blueprint, problem: string): Promise<void> {
    const key = templateKey(blueprint);
    const path = this.#ready.get(key);
    this.#tried.add(key);
    if (path === undefined) return;
    this.#ready.delete(key);
    this.#log.warn("a template is of no use and is removed: microVMs of its size boot, until a start of the daemon makes another", {
      path,
      problem,
    });
    await rm(path, { force: true });
  }

  /** Stops what is being made and waits until nothing of it is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new DOMException("the vm room is closing", "AbortError"));
    await this.#work;
  }

  async #make(key: string, blueprint: Blueprint, signal: AbortSignal): Promise<void> {
    const startMs = performance.now();
    try {
      const path = await makeTemplate(blueprint, { dir: this.#dir, key }, signal);
      this.#ready.set(key, path);
      await this.#removeSurplus(key);
      const { memoryMib, vcpus } = blueprint.machine;
      const durationMs = Math.round(performance.now() - startMs);
      this.#log.info("microVMs start from a template", { path, memoryMib, vcpus, durationMs });
    } catch (error) {
      if (!signal.aborted) this.#log.warn("no template could be made: microVMs of its size boot", { directory: this.#dir }, error);
    }
  }

  /** Those of another QEMU or another guest than this daemon's, and what is too much. Whoever has just found one uses it: it is the last to go. */
  async #removeSurplus(made: string): Promise<void> {
    const ground = (key: string) => key.split("-")[0];
    const { foreign = [], own = [] } = Object.groupBy(this.#ready, ([key]) => (ground(key) === ground(made) ? "own" : "foreign"));
    for (const [key, path] of [...foreign, ...own.slice(0, -KEPT)]) {
      this.#ready.delete(key);
      await rm(path, { force: true });
    }
  }
}

/** Everything that a saved machine depends on: GROUND-MACHINE, where the ground is what all machines of a node have in common. */
export function templateKey({ machine, parts }: Blueprint): string {
  const { qemu, files } = parts;
  const { kernel, system, scratch } = files.parts;
  const guest = [kernel, system, scratch, files.initrd].map((part) => part?.sha256 ?? "none");
  const ground = [FORMAT_VERSION, qemu.version, qemu.identity, guest];
  return `${shortHash(ground)}-${shortHash(templateArgs({ machine, parts }, ""))}`;
}

function shortHash(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex").slice(0, 16);
}

function templateArgs({ machine, parts: { files } }: Blueprint, dir: string): readonly string[] {
  const { kernel, system } = files.parts;
  const wiring: Wiring = {
    paths: {
      kernel: kernel.path,
      initrd: files.initrd?.path,
      system: system.path,
      scratch: join(dir, "scratch.img"),
      qmp: join(dir, "qmp.sock"),
    },
    console: { kind: "stdio" },
    // Open, as a pod's are: a guest remembers whether its host was there.
    control: { kind: "fd", fd: 3 },
    volumes: { kind: "fd", fd: 4 },
    tap: { kind: "own" },
  };
  return qemuArgs({ ...machine, beginning: "template" }, wiring, files.kernelArguments);
}

/** All or nothing. Answers the state's path. */
async function makeTemplate(
  blueprint: Blueprint,
  to: { readonly dir: string; readonly key: string },
  signal: AbortSignal,
): Promise<string> {
  const { qemu, files } = blueprint.parts;
  const dir = await mkdtemp(join(to.dir, UNFINISHED_PREFIX));
  try {
    await copyWithHole(files.parts.scratch, join(dir, "scratch.img"), signal);
    const statePath = join(dir, "state");
    const command = { file: "unshare", args: ["--net", "--", qemu.path, ...templateArgs(blueprint, dir)], cwd: "/" };
    const atSign = () => saveMachine({ qmpPath: join(dir, "qmp.sock"), socketPath: join(dir, "state.sock"), statePath }, { signal });
    const { outcome, stdoutTail, stderrTail } = await runUntil(command, { signal, timeoutMs: TIMEOUT_MS, sign: SIGN, streams: 2, atSign });
    if (outcome !== "sign") throw templateError(`the machine to be saved ended with ${outcome}: ${stderrTail.trim() || stdoutTail.trim()}`);
    const path = join(to.dir, `${to.key}.${await sumState(statePath, signal)}.state`);
    await rename(statePath, path);
    await syncDirectory(to.dir);
    return path;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function sumState(path: string, signal: AbortSignal): Promise<string> {
  return await sumFile(path, (await stat(path)).size, { signal });
}

async function copyWithHole({ path, dataBytes, sizeBytes }: GuestPart, to: string, signal: AbortSignal): Promise<void> {
  await pipeline(createReadStream(path, { end: dataBytes - 1 }), createWriteStream(to, { mode: 0o600 }), { signal });
  await using file = await open(to, "r+");
  await file.truncate(sizeBytes);
}
