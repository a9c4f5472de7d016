import { createHash } from "node:crypto";
import { createReadStream, createWriteStream, existsSync } from "node:fs";
import { mkdir, mkdtemp, open, readdir, rename, rm } from "node:fs/promises";
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

/** Changes with what a template is, besides QEMU, its arguments and the guest's files. */
const FORMAT_VERSION = 2;
/** Pods have few sizes, and a template takes 30 to 100 MiB. */
const KEPT = 8;
const STATE_SUFFIX = ".state";
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
 * Machines that were booted once and saved before they were anybody's, one for each size that pods have: DIR/KEY.state, where the key is of
 * everything that a machine begins with. Made in the background, one attempt in a daemon's life; without one a machine boots.
 */
export class MachineTemplates implements AsyncDisposable {
  readonly #dir: string;
  readonly #log: Log;
  readonly #closing = new AbortController();
  /** Keys, the one that was not used for longest first. */
  readonly #ready: Set<string>;
  readonly #tried = new Set<string>();
  /** What is being made. */
  #work: Promise<void> | undefined;

  private constructor(dir: string, ready: Set<string>, log: Log) {
    this.#dir = dir;
    this.#ready = ready;
    this.#log = log;
  }

  /** Finds what is there, and removes what an earlier daemon did not finish. */
  static async open(dir: string, modules: { readonly log: Log }): Promise<MachineTemplates> {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const names = await readdir(dir);
    const states = names.filter((name) => name.endsWith(STATE_SUFFIX));
    for (const name of names) if (!states.includes(name)) await rm(join(dir, name), { recursive: true, force: true });
    return new MachineTemplates(dir, new Set(states.map((name) => name.slice(0, -STATE_SUFFIX.length))), modules.log);
  }

  /** Path of the saved state that this machine can go on from. */
  find(blueprint: Blueprint): string | undefined {
    const key = templateKey(blueprint);
    const path = this.#path(key);
    if (!this.#ready.has(key)) return undefined;
    this.#ready.delete(key);
    if (existsSync(path)) {
      this.#ready.add(key);
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
    const path = this.#path(key);
    this.#tried.add(key);
    if (!this.#ready.delete(key)) return;
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

  #path(key: string): string {
    return join(this.#dir, `${key}${STATE_SUFFIX}`);
  }

  async #make(key: string, blueprint: Blueprint, signal: AbortSignal): Promise<void> {
    const startMs = performance.now();
    try {
      await makeTemplate(blueprint, { dir: this.#dir, path: this.#path(key) }, signal);
      this.#ready.add(key);
      await this.#removeSurplus(key);
      const { memoryMib, vcpus } = blueprint.machine;
      const durationMs = Math.round(performance.now() - startMs);
      this.#log.info("microVMs start from a template", { path: this.#path(key), memoryMib, vcpus, durationMs });
    } catch (error) {
      if (!signal.aborted) this.#log.warn("no template could be made: microVMs of its size boot", { directory: this.#dir }, error);
    }
  }

  /** Those of another QEMU or another guest than this daemon's, and what is too much. Whoever has just found one uses it: it is the last to go. */
  async #removeSurplus(made: string): Promise<void> {
    const ground = (key: string) => key.split("-")[0];
    const foreign = [...this.#ready].filter((key) => ground(key) !== ground(made));
    const own = [...this.#ready].filter((key) => ground(key) === ground(made));
    for (const key of [...foreign, ...own.slice(0, -KEPT)]) {
      this.#ready.delete(key);
      await rm(this.#path(key), { force: true });
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

/** All or nothing at `path`. */
async function makeTemplate(blueprint: Blueprint, to: { readonly dir: string; readonly path: string }, signal: AbortSignal): Promise<void> {
  const { qemu, files } = blueprint.parts;
  const dir = await mkdtemp(join(to.dir, UNFINISHED_PREFIX));
  try {
    await copyWithHole(files.parts.scratch, join(dir, "scratch.img"), signal);
    const statePath = join(dir, "state");
    const command = { file: "unshare", args: ["--net", "--", qemu.path, ...templateArgs(blueprint, dir)], cwd: "/" };
    const atSign = () => saveMachine({ qmpPath: join(dir, "qmp.sock"), socketPath: join(dir, "state.sock"), statePath }, { signal });
    const { outcome, stdoutTail, stderrTail } = await runUntil(command, { signal, timeoutMs: TIMEOUT_MS, sign: SIGN, streams: 2, atSign });
    if (outcome !== "sign") throw templateError(`the machine to be saved ended with ${outcome}: ${stderrTail.trim() || stdoutTail.trim()}`);
    await rename(statePath, to.path);
    await syncDirectory(to.dir);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function copyWithHole({ path, dataBytes, sizeBytes }: GuestPart, to: string, signal: AbortSignal): Promise<void> {
  await pipeline(createReadStream(path, { end: dataBytes - 1 }), createWriteStream(to, { mode: 0o600 }), { signal });
  await using file = await open(to, "r+");
  await file.truncate(sizeBytes);
}
