import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "./config.ts";
import { type Problem, problemsError } from "./errors.ts";
import type { Decoded, Kind, TomlValue } from "./kinds.ts";
import { didYouMean } from "./nearest.ts";
import type { RawConfig, RawEntry } from "./read.ts";
import { type SchemaRow, schemaRows } from "./schema.ts";

export interface ResolveOptions {
  /** Root of the program's own files, where `build/auraed` and `build/guest` are looked for. */
  readonly programDir: string;
}

/** Later ones win: the file, then the flags. Throws `ERR_CONFIG` with every problem of all of them. */
export function resolveConfig(raws: readonly RawConfig[], options: ResolveOptions): Config {
  const rows = schemaRows();
  const problems = raws.flatMap((raw) => [...raw.problems, ...findUnknown(raw, rows)]);
  const written = new Map<string, RawEntry>();
  for (const entry of raws.flatMap((raw) => raw.entries)) written.set(entry.path, entry);
  const config = assemble(rows, written, problems);
  if (config !== undefined) problems.push(...findContradictions(config, written));
  if (config === undefined || problems.length > 0) throw problemsError(problems);
  const { programDir } = options;
  return {
    ...config,
    auraed: { path: config.auraed.path || ownFile(programDir, "auraed") },
    vm: { ...config.vm, guestDir: config.vm.guestDir || ownFile(programDir, "guest") },
  };
}

/** Undefined when a value does not decode, which `problems` says then. */
function assemble(rows: readonly SchemaRow[], written: ReadonlyMap<string, RawEntry>, problems: Problem[]): Config | undefined {
  const config: Record<string, unknown> = {};
  let sound = true;
  for (const { key, path, property } of rows) {
    const entry = written.get(path);
    const decoded: Decoded<unknown> = entry === undefined ? { ok: true, value: key.fallback } : decode(entry, key.kind);
    if (!decoded.ok) {
      sound = false;
      problems.push({ where: entry?.whereValue ?? path, message: `${path}: want ${decoded.want}${found(entry?.value)}` });
      continue;
    }
    const [name, inner] = property;
    if (inner === undefined) config[name] = decoded.value;
    else config[name] = { ...(config[name] as object | undefined), [inner]: decoded.value };
  }
  // The rows are those of `SchemaOf<Config>`: each property was set, with its own type.
  return sound ? (config as unknown as Config) : undefined;
}

function decode(entry: RawEntry, kind: Kind<unknown>): Decoded<unknown> {
  // What is no value of ours (a date, a mixed list) must fail in every kind, so that each says what it wants: NaN does.
  return kind.decode(entry.value ?? Number.NaN);
}

function found(value: TomlValue | undefined): string {
  return value === undefined ? "" : `, not ${JSON.stringify(value)}`;
}

function findUnknown(raw: RawConfig, rows: readonly SchemaRow[]): Problem[] {
  const keys = rows.map(({ path }) => path);
  const tables = [...new Set(rows.flatMap(({ table }) => (table === undefined ? [] : [table.toml])))];
  const strayTables = raw.tables.filter(({ path }) => !tables.includes(path));
  const problems = strayTables.map(({ path, where }): Problem => {
    if (keys.includes(path)) return { where, message: `'${path}' is a key, not a table` };
    return { where, message: `unknown table '${path}'${didYouMean(path, tables)}` };
  });
  for (const { path, where } of raw.entries) {
    // Said once, for the table.
    if (keys.includes(path) || strayTables.some((table) => path.startsWith(`${table.path}.`))) continue;
    if (tables.includes(path)) problems.push({ where, message: `'${path}' is a table: write [${path}] and its keys below` });
    else problems.push({ where, message: `unknown key '${path}'${didYouMean(path, keys)}` });
  }
  return problems;
}

/** What each key allows but the whole does not. Named at the key that is easier to change. */
function findContradictions(config: Config, written: ReadonlyMap<string, RawEntry>): Problem[] {
  const problems: Problem[] = [];
  const refuse = (path: string, message: string): void => {
    problems.push({ where: written.get(path)?.whereValue ?? path, message: `${path}: ${message}` });
  };
  const { placement, vm, root, state, streaming } = config;
  if (placement.default === "require-vm" && vm.accelerator === "off") {
    refuse("placement.default", '"require-vm" cannot be kept with vm.accelerator = "off": no pod would start');
  }
  if (vm.accelerator !== "off" && !vm.qemuPath.startsWith("/usr/")) {
    refuse("vm.qemu_path", `${vm.qemuPath} is not below /usr, which is all of the host that a microVM's QEMU can see: install it there`);
  }
  if ((streaming.tlsCertFile === "") !== (streaming.tlsKeyFile === "")) {
    const [given, missing] = streaming.tlsCertFile === "" ? ["tls_key_file", "tls_cert_file"] : ["tls_cert_file", "tls_key_file"];
    refuse(`streaming.${given}`, `is nothing without streaming.${missing}: name both files, or neither`);
  }
  if (root === state) refuse("state", `the same directory as root (${root}): one is kept over a reboot, the other is not`);
  return problems;
}

/** What was built beside the program, else what a package installs. */
function ownFile(programDir: string, name: string): string {
  const built = join(programDir, "build", name);
  return existsSync(built) ? built : `/usr/lib/aurae-cri/${name}`;
}
