import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";

import { readDevice } from "../host/devices.ts";
import { messageOf } from "../lib/coded-error.ts";
import type { Log } from "../lib/log.ts";
import type { Cdi, CdiDeviceNode, CdiEdits } from "../runtime/ports.ts";
import { CdiError } from "./errors.ts";
import type { CdiOptions } from "./options.ts";
import { type ContainerEdits, readSpecification, type Specification } from "./spec-file.ts";

/** A specification that was read. */
interface Found {
  readonly file: string;
  /** Place of its directory: a later one overrides an earlier one. */
  readonly rank: number;
  readonly specification: Specification;
}

interface Bad {
  readonly file: string;
  readonly problem: string;
}

/** Devices as the CDI specifications of this node describe them. Read anew for each container that asks: what a vendor writes counts at once. */
export class CdiDevices implements Cdi {
  readonly #options: CdiOptions;
  readonly #log: Log;

  constructor(options: CdiOptions, modules: { readonly log: Log }) {
    this.#options = options;
    this.#log = modules.log;
  }

  async resolve(names: readonly string[]): Promise<CdiEdits | undefined> {
    if (names.length === 0) return undefined;
    const { found, bad } = await readAll(this.#options.specDirs);
    for (const { file, problem } of bad) this.#log.warn("a CDI specification cannot be read: its devices are not known", { file, problem });
    const edits: CdiEdits[] = [];
    const begun = new Set<string>();
    for (const name of names) {
      const { file, specification } = this.#specificationOf(name, found, bad);
      // What a file says of all its devices is done once, before what it says of the first of them.
      if (!begun.has(file) && specification.containerEdits !== undefined)
        edits.push(await checked(name, file, specification.containerEdits));
      begun.add(file);
      const own = specification.devices.find((device) => deviceName(specification, device.name) === name);
      if (own !== undefined) edits.push(await checked(name, file, own.containerEdits));
    }
    return merged(edits);
  }

  #specificationOf(name: string, found: readonly Found[], bad: readonly Bad[]): Found {
    const having = found.filter(({ specification }) =>
      specification.devices.some((device) => deviceName(specification, device.name) === name),
    );
    const highest = Math.max(...having.map(({ rank }) => rank));
    const [first, ...others] = having.filter(({ rank }) => rank === highest);
    if (first === undefined) throw this.#unknown(name, bad);
    if (others.length === 0) return first;
    const files = [first, ...others].map(({ file }) => file);
    throw new CdiError(
      { code: "ERR_CDI_CONFLICT", device: name, files },
      `CDI device '${name}' is described by ${files.join(" and by ")}: remove it from one of them`,
    );
  }

  #unknown(name: string, bad: readonly Bad[]): CdiError {
    const { specDirs } = this.#options;
    const where =
      specDirs.length === 0 ? "no directory of CDI specifications is configured" : `no specification in ${specDirs.join(" or ")} has it`;
    const broken = bad.map(({ file, problem }) => `; ${file} cannot be read: ${problem}`).join("");
    return new CdiError({ code: "ERR_CDI_UNKNOWN_DEVICE", device: name }, `CDI device '${name}' is not on this node: ${where}${broken}`);
  }
}

function deviceName({ kind }: Specification, name: string): string {
  return `${kind}=${name}`;
}

async function readAll(dirs: readonly string[]): Promise<{ readonly found: readonly Found[]; readonly bad: readonly Bad[] }> {
  const found: Found[] = [];
  const bad: Bad[] = [];
  for (const [rank, dir] of dirs.entries()) {
    for (const file of await specificationFiles(dir)) {
      try {
        found.push({ file, rank, specification: await readSpecification(file) });
      } catch (error) {
        bad.push({ file, problem: messageOf(error) });
      }
    }
  }
  return { found, bad };
}

async function specificationFiles(dir: string): Promise<readonly string[]> {
  try {
    const names = await readdir(dir);
    return names
      .filter((name) => /\.(json|ya?ml)$/.test(name))
      .sort()
      .map((name) => join(dir, name));
  } catch (error) {
    if (error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR")) return [];
    throw error;
  }
}

/** The edits with everything that they name looked up on the host. */
async function checked(device: string, file: string, edits: ContainerEdits): Promise<CdiEdits> {
  const refuse = (problem: string): CdiError =>
    new CdiError({ code: "ERR_CDI_EDIT", device, file }, `CDI device '${device}': ${problem} (${file})`);
  const mounts = (edits.mounts ?? []).map(({ type = "", options = [], ...mount }) => ({ ...mount, type: typeOf(type, options), options }));
  for (const { type, hostPath } of mounts) {
    if (type === "bind")
      await stat(hostPath).catch((error: unknown) => Promise.reject(refuse(`its mount cannot be made: ${messageOf(error)}`)));
  }
  for (const { path } of edits.hooks ?? []) {
    await stat(path).catch((error: unknown) => Promise.reject(refuse(`its hook cannot be run: ${messageOf(error)}`)));
  }
  const nodes = (edits.deviceNodes ?? []).map((node) =>
    deviceNode(node).catch((error: unknown) => Promise.reject(refuse(`its device node ${node.path} cannot be made: ${messageOf(error)}`))),
  );
  return {
    env: edits.env ?? [],
    deviceNodes: await Promise.all(nodes),
    mounts,
    hooks: (edits.hooks ?? []).map(({ hookName: name, path, args = [], env = [], timeout: timeoutSec }) => ({
      name,
      path,
      args,
      env,
      ...(timeoutSec === undefined ? {} : { timeoutSec }),
    })),
    additionalGids: edits.additionalGids ?? [],
    ...(edits.intelRdt === undefined ? {} : { intelRdt: edits.intelRdt }),
  };
}

/** The type may be left out of a bind mount. */
function typeOf(type: string, options: readonly string[]): string {
  return type === "" || type === "none" || options.includes("bind") || options.includes("rbind") ? "bind" : type;
}

/** What the specification leaves out is as at the host's node. */
async function deviceNode(node: NonNullable<ContainerEdits["deviceNodes"]>[number]): Promise<CdiDeviceNode> {
  const { path: containerPath, hostPath = containerPath, permissions = "" } = node;
  if (node.type === "p") throw new Error("it is a named pipe, which no container can be given as a device");
  const given = node.type !== undefined && node.major !== undefined && node.minor !== undefined;
  const type = node.type === "b" ? "b" : "c";
  const owner = { ...(node.uid === undefined ? {} : { uid: node.uid }), ...(node.gid === undefined ? {} : { gid: node.gid }) };
  const access = permissions === "" ? "rwm" : permissions;
  if (given && node.fileMode !== undefined) {
    const [major, minor] = [node.major ?? 0, node.minor ?? 0];
    return { containerPath, hostPath, type, major, minor, fileMode: node.fileMode, permissions: access, ...owner };
  }
  const [host, ...others] = await readDevice({ hostPath, containerPath, permissions: access });
  if (host === undefined || others.length > 0) throw new Error(`${hostPath} is a directory`);
  const asked = node.type === undefined ? host.type : type;
  if (asked !== host.type) throw new Error(`${hostPath} is of type ${host.type}, not ${asked}`);
  const { major, minor, fileMode } = host;
  return {
    containerPath,
    hostPath,
    type: asked,
    major: node.major ?? major,
    minor: node.minor ?? minor,
    fileMode: node.fileMode ?? fileMode,
    permissions: access,
    ...owner,
  };
}

/** In order: where two of them set the same thing, whoever applies them lets the later one win. */
function merged(edits: readonly CdiEdits[]): CdiEdits {
  const rdt = edits.findLast(({ intelRdt }) => intelRdt !== undefined)?.intelRdt;
  return {
    env: edits.flatMap(({ env }) => env),
    deviceNodes: edits.flatMap(({ deviceNodes }) => deviceNodes),
    mounts: edits.flatMap(({ mounts }) => mounts),
    hooks: edits.flatMap(({ hooks }) => hooks),
    additionalGids: [...new Set(edits.flatMap(({ additionalGids }) => additionalGids))],
    ...(rdt === undefined ? {} : { intelRdt: rdt }),
  };
}
