import { existsSync, readFileSync } from "node:fs";
import { messageOf } from "../lib/coded-error.ts";
import type { Config } from "./config.ts";
import { ConfigError } from "./errors.ts";
import { type RawConfig, readToml } from "./read.ts";
import { resolveConfig } from "./resolve.ts";

/** Read when no `--config` is given, if it is there. */
export const defaultConfigPath = "/etc/aurae-cri/config.toml";

/** Keys that a flag sets, by the flag's name. */
export interface ConfigFlags {
  readonly config?: string | undefined;
  readonly root?: string | undefined;
  readonly state?: string | undefined;
  readonly listen?: string | undefined;
}

const programDir = new URL("../..", import.meta.url).pathname;

/** The effective configuration: defaults, then the file, then the flags. Throws `ConfigError`. */
export function loadConfig(flags: ConfigFlags): Config {
  const path = flags.config ?? (existsSync(defaultConfigPath) ? defaultConfigPath : undefined);
  const file = path === undefined ? [] : [readToml(readConfigFile(path), path)];
  return resolveConfig([...file, fromFlags(flags)], { programDir });
}

function readConfigFile(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new ConfigError({ code: "ERR_CONFIG_FILE", path }, `cannot read the configuration: ${messageOf(error)}`, { cause: error });
  }
}

function fromFlags(flags: ConfigFlags): RawConfig {
  const entries = (["root", "state", "listen"] as const).flatMap((name) => {
    const value = flags[name];
    return value === undefined ? [] : [{ path: name, value, where: `--${name}`, whereValue: `--${name}` }];
  });
  return { entries, tables: [], problems: [] };
}
