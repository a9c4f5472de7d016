import { readdir, readFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { z } from "zod";
import { messageOf } from "../lib/coded-error.ts";
import { supportedVersions } from "./cni-version.ts";
import { NetnsError } from "./errors.ts";

/** A file of the configuration directory, as a list; a single plugin's configuration is a list of one. */
export interface NetworkConfig {
  readonly file: string;
  readonly name: string;
  /** The versions the file offers that we speak; never empty. */
  readonly cniVersions: readonly string[];
  readonly disableCheck: boolean;
  readonly disableGc: boolean;
  readonly plugins: readonly PluginConfig[];
}

/** A plugin's own configuration: everything but `type` and `capabilities` is for the plugin alone. */
export type PluginConfig = z.infer<typeof pluginSchema>;

const flag = z.union([z.boolean(), z.enum(["true", "false"])]).transform((value) => value === true || value === "true");

/** The type names a file in a plugin directory: never a path. */
export const pluginSchema = z.looseObject({
  type: z.string().regex(/^[A-Za-z0-9_.-]+$/, "must be the file name of a plugin, without a path"),
  capabilities: z.record(z.string(), z.boolean()).optional(),
});

const networkFields = {
  name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_.-]*$/, "must begin with a letter or digit and hold only those, '_', '.' and '-'"),
  cniVersion: z.string().optional(),
  cniVersions: z.array(z.string()).optional(),
  disableCheck: flag.default(false),
  disableGC: flag.default(false),
};
const listSchema = z.looseObject({ ...networkFields, plugins: z.array(pluginSchema).min(1, "must name at least one plugin") });
const singleSchema = z.looseObject({ ...pluginSchema.shape, ...networkFields });

/** Parses the text of a configuration file. Throws ERR_CNI_CONFIG, whose message names the file and the field. */
export function parseNetworkConfig(file: string, text: string): NetworkConfig {
  const json = parseJson(file, text);
  const isList = extname(file) === ".conflist" || (typeof json === "object" && json !== null && "plugins" in json);
  if (!isList) {
    const single = check(file, singleSchema, json);
    const { name: _name, cniVersion: _version, cniVersions: _versions, disableCheck: _check, disableGC: _gc, ...plugin } = single;
    return networkConfig(file, single, [plugin]);
  }
  const list = check(file, listSchema, json);
  return networkConfig(file, list, list.plugins);
}

type NetworkFields = Pick<z.infer<typeof listSchema>, "name" | "cniVersion" | "cniVersions" | "disableCheck" | "disableGC">;

function networkConfig(file: string, fields: NetworkFields, plugins: readonly PluginConfig[]): NetworkConfig {
  const offered = [...(fields.cniVersion === undefined ? [] : [fields.cniVersion]), ...(fields.cniVersions ?? [])];
  const cniVersions = supportedVersions.filter((version) => offered.includes(version));
  if (cniVersions.length === 0) {
    const said = offered.length === 0 ? "is missing" : `is ${offered.join(", ")}`;
    throw configError(file, `cniVersion ${said}: set one of ${supportedVersions.join(", ")}`);
  }
  return { file, name: fields.name, cniVersions, disableCheck: fields.disableCheck, disableGc: fields.disableGC, plugins };
}

function parseJson(file: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    // The parser quotes the text around the fault, and some configurations hold a token: neither message nor cause may carry it.
    const fault = messageOf(error).replace(/, (\.\.\.)?".*"(\.\.\.)? is not valid JSON$/s, "");
    throw configError(file, text.trim() === "" ? "is empty" : `is not JSON: ${fault}`);
  }
}

function check<Schema extends z.ZodType>(file: string, schema: Schema, json: unknown): z.infer<Schema> {
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const field = issue === undefined || issue.path.length === 0 ? "the document" : issue.path.join(".");
  throw configError(file, `${field}: ${issue?.message ?? "is invalid"}`, parsed.error);
}

function configError(file: string, problem: string, cause?: unknown): NetnsError {
  return new NetnsError({ code: "ERR_CNI_CONFIG", file }, `${file}: ${problem}`, { cause });
}

const EXTENSIONS = [".conf", ".conflist", ".json"];

/**
 * The first configuration of a directory by name. Only the first is read, and a broken one is an error: going on to the next file
 * would put pods into another network than the operator meant. Hidden files are someone's temporary ones.
 */
export async function loadNetworkConfig(confDir: string): Promise<NetworkConfig> {
  const names = await listNames(confDir);
  const first = names.filter((name) => !name.startsWith(".") && EXTENSIONS.includes(extname(name)))[0];
  if (first === undefined) {
    const seen = names.length === 0 ? "it is empty" : `it holds only ${names.join(", ")}`;
    throw configError(confDir, `no CNI configuration (looked for *.conf, *.conflist and *.json; ${seen})`);
  }
  const file = join(confDir, first);
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    throw configError(file, `cannot be read: ${messageOf(error)}`, error);
  }
  return parseNetworkConfig(file, text);
}

async function listNames(confDir: string): Promise<readonly string[]> {
  try {
    const entries = await readdir(confDir, { withFileTypes: true });
    const files = entries.filter((entry) => !entry.isDirectory()).map((entry) => entry.name);
    return files.sort((left, right) => (left < right ? -1 : 1));
  } catch (error) {
    throw configError(confDir, `no CNI configuration: the directory cannot be read (${messageOf(error)})`, error);
  }
}
