import { readdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { getStaticTOMLValue, parseTOML } from "toml-eslint-parser";
import { z } from "zod";

import { ImageError } from "../errors.ts";

export type Capability = "pull" | "resolve";

/** One place an image may come from. */
export interface Endpoint {
  /** Up to where `/<path>/manifests/…` goes: `https://registry-1.docker.io/v2`. */
  readonly base: string;
  /** Host and port, for messages and credentials. */
  readonly host: string;
  /** The registry the reference names, rather than a mirror of it. */
  readonly origin: boolean;
  readonly capabilities: readonly Capability[];
  readonly headers: Readonly<Record<string, string>>;
  readonly tls: TlsOptions;
}

export interface TlsOptions {
  readonly skipVerify: boolean;
  /** PEM texts added to the platform's. */
  readonly ca: readonly string[];
  readonly client: readonly { readonly cert: string; readonly key: string }[];
}

const list = z.union([z.string(), z.array(z.string())]).transform((value) => (typeof value === "string" ? [value] : value));
const hostSchema = z.looseObject({
  capabilities: z.array(z.string()).optional(),
  ca: list.optional(),
  client: z.union([z.string(), z.array(z.union([z.string(), z.array(z.string())]))]).optional(),
  skip_verify: z.boolean().optional(),
  override_path: z.boolean().optional(),
  header: z.record(z.string(), list).optional(),
});
const fileSchema = hostSchema.extend({ server: z.string().optional(), host: z.record(z.string(), hostSchema).optional() });
type HostTable = z.infer<typeof hostSchema>;

const noTls: TlsOptions = { skipVerify: false, ca: [], client: [] };

/**
 * Where to ask for images of `domain`, in order. Reads containerd's `hosts.toml` afresh each time, so that a change needs no restart:
 * `<configPath>/<domain>/`, for a port also `<host>_<port>_`, and `_default` when there is neither.
 */
export async function endpointsOf(domain: string, configPath: string): Promise<readonly Endpoint[]> {
  const dir = await configDirOf(domain, configPath);
  if (dir === undefined) return [defaultEndpoint(domain, noTls)];
  const file = join(dir, "hosts.toml");
  const text = await readOptional(file);
  if (text === undefined) return [defaultEndpoint(domain, await certsOf(dir))];
  const { host: hosts = {}, server, ...root } = parse(text, file);
  const endpoints: Endpoint[] = [];
  for (const [url, table] of Object.entries(hosts)) endpoints.push(await endpointFrom(url, table, { dir, file, origin: false }));
  if (server === undefined) endpoints.push({ ...defaultEndpoint(domain, await tlsOf(root, dir, file)), headers: headersOf(root) });
  else endpoints.push(await endpointFrom(server, root, { dir, file, origin: true }));
  return dedupe(endpoints);
}

/** Loopback registries are spoken to in plain text: there is no wire to listen on. */
function defaultEndpoint(domain: string, tls: TlsOptions): Endpoint {
  const host = domain === "docker.io" ? "registry-1.docker.io" : domain;
  const scheme = isLoopback(host) ? "http" : "https";
  return { base: `${scheme}://${host}/v2`, host, origin: true, capabilities: ["pull", "resolve"], headers: {}, tls };
}

export function isLoopback(host: string): boolean {
  const name = host.replace(/:\d+$/, "").replace(/^\[|\]$/g, "");
  return name === "localhost" || name === "::1" || /^127\.\d+\.\d+\.\d+$/.test(name);
}

interface Place {
  readonly dir: string;
  readonly file: string;
  readonly origin: boolean;
}

async function endpointFrom(text: string, table: HostTable, { dir, file, origin }: Place): Promise<Endpoint> {
  const guessed = isLoopback(text.replace(/\/.*$/, "")) ? `http://${text}` : `https://${text}`;
  const url = URL.parse(/^https?:\/\//.test(text) ? text : guessed);
  if (url === null || url.username !== "") throw hostsError(file, `'${text}' is not a URL of a registry`);
  const path = url.pathname.replace(/\/+$/, "");
  const base = `${url.origin}${table.override_path === true || path.endsWith("/v2") ? path : `${path}/v2`}`;
  const capabilities = (table.capabilities ?? ["pull", "resolve"]).filter((item) => item === "pull" || item === "resolve");
  return { base, host: url.host, origin, capabilities, headers: headersOf(table), tls: await tlsOf(table, dir, file) };
}

function headersOf(table: HostTable): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(table.header ?? {}).map(([name, values]) => [name.toLowerCase(), values.join(", ")]));
}

async function tlsOf(table: HostTable, dir: string, file: string): Promise<TlsOptions> {
  const read = async (path: string): Promise<string> => {
    const text = await readOptional(resolve(dir, path));
    if (text === undefined) throw hostsError(file, `certificate file ${resolve(dir, path)} does not exist`);
    return text;
  };
  const { client = [] } = table;
  const pairs = typeof client === "string" ? [client] : client;
  return {
    skipVerify: table.skip_verify ?? false,
    ca: await Promise.all((table.ca ?? []).map(read)),
    client: await Promise.all(
      pairs.map(async (pair) => {
        const [cert = "", key] = typeof pair === "string" ? [pair] : pair;
        return { cert: await read(cert), key: await read(key ?? cert) };
      }),
    ),
  };
}

/** Docker's way: a directory with nothing but `*.crt`, and `NAME.cert` beside `NAME.key`. */
async function certsOf(dir: string): Promise<TlsOptions> {
  const names = (await readdir(dir)).sort();
  const read = (name: string): Promise<string> => readFile(join(dir, name), "utf8");
  const pairs = names.filter((name) => name.endsWith(".cert") && names.includes(name.replace(/\.cert$/, ".key")));
  return {
    skipVerify: false,
    ca: await Promise.all(names.filter((name) => name.endsWith(".crt")).map(read)),
    client: await Promise.all(pairs.map(async (name) => ({ cert: await read(name), key: await read(name.replace(/\.cert$/, ".key")) }))),
  };
}

async function configDirOf(domain: string, configPath: string): Promise<string | undefined> {
  const portForm = domain.replace(/:(\d+)$/, "_$1_");
  for (const root of configPath.split(":").filter((part) => part !== "")) {
    const names = new Set(await readdir(root).catch(() => []));
    const name = [portForm, domain, "_default"].find((candidate) => names.has(candidate));
    if (name !== undefined) return join(root, name);
  }
  return undefined;
}

function parse(text: string, file: string): z.infer<typeof fileSchema> {
  let value: unknown;
  try {
    value = getStaticTOMLValue(parseTOML(text));
  } catch (error) {
    throw hostsError(file, error instanceof Error ? error.message : "is not TOML", error);
  }
  const result = fileSchema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw hostsError(file, `${issue?.path.join(".") ?? ""}: ${issue?.message ?? "is malformed"}`);
}

function dedupe(endpoints: readonly Endpoint[]): readonly Endpoint[] {
  return endpoints.filter(
    (endpoint, index) => endpoint.origin || !endpoints.slice(0, index).some((before) => before.base === endpoint.base),
  );
}

async function readOptional(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw hostsError(file, "cannot be read", error);
  }
}

function hostsError(file: string, problem: string, cause?: unknown): ImageError {
  return new ImageError({ code: "ERR_HOSTS_TOML", file }, `${file}: ${problem}`, cause === undefined ? undefined : { cause });
}
