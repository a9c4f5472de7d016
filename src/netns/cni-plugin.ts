import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { HostError } from "../host/errors.ts";
import { type ProcessResult, run } from "../host/process.ts";
import { withDeadline } from "../lib/abort.ts";
import { type CniCommand, NetnsError } from "./errors.ts";

/** One execution of a plugin. Source: CNI spec, sections 2 and 4. */
export interface PluginCall {
  readonly plugin: string;
  readonly command: CniCommand;
  /** The execution configuration, sent as JSON on stdin. */
  readonly config: Readonly<Record<string, unknown>>;
  /** The CNI_ variables beside CNI_COMMAND and CNI_PATH. */
  readonly variables: Readonly<Record<string, string>>;
}

/** How plugins are run. */
export interface PluginHost {
  readonly binDirs: readonly string[];
  readonly pluginEnv: Readonly<Record<string, string>>;
}

/** Runs a plugin; resolves with the JSON it printed, undefined when it printed nothing. */
export async function callPlugin(call: PluginCall, host: PluginHost, options: { readonly signal: AbortSignal }): Promise<unknown> {
  const file = await findPlugin(call.plugin, host.binDirs);
  const command = {
    file,
    env: { ...host.pluginEnv, ...call.variables, CNI_COMMAND: call.command, CNI_PATH: host.binDirs.join(":") },
    stdin: JSON.stringify(call.config),
  };
  let result: ProcessResult;
  try {
    result = await run(command, { signal: options.signal });
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    throw execError(call, error.fact.code === "ERR_PROCESS_ABORTED" ? abortReason(options.signal) : error.message, error);
  }
  if (result.exitCode !== 0) throw failureOf(call, result);
  if (result.stdout.trim() === "") return undefined;
  try {
    return JSON.parse(result.stdout);
  } catch (error) {
    throw execError(call, `answered with what is not JSON: ${excerpt(result.stdout)}`, error);
  }
}

/** The plugin's file in the first directory that has it. */
export async function findPlugin(plugin: string, binDirs: readonly string[]): Promise<string> {
  for (const directory of binDirs) {
    const file = join(directory, plugin);
    const isFile = await stat(file).then(
      (entry) => entry.isFile(),
      () => false,
    );
    if (
      isFile &&
      (await access(file, constants.X_OK).then(
        () => true,
        () => false,
      ))
    )
      return file;
  }
  throw new NetnsError({ code: "ERR_CNI_PLUGIN_MISSING", plugin, binDirs }, `CNI plugin '${plugin}' not found in ${binDirs.join(", ")}`);
}

const versionSchema = z.looseObject({ supportedVersions: z.array(z.string()) });
const VERSION_TIMEOUT_MS = 5_000;

/** The spec versions a plugin says it speaks. */
export async function pluginVersions(
  plugin: string,
  host: PluginHost,
  options: { readonly signal: AbortSignal },
): Promise<readonly string[]> {
  using deadline = withDeadline(VERSION_TIMEOUT_MS, options.signal);
  // Old plugins demand the other variables even here.
  const variables = { CNI_CONTAINERID: "version", CNI_NETNS: "version", CNI_IFNAME: "version" };
  const call: PluginCall = { plugin, command: "VERSION", config: { cniVersion: "1.0.0" }, variables };
  const answer = versionSchema.safeParse(await callPlugin(call, host, deadline));
  if (!answer.success) throw execError(call, "answered without supportedVersions");
  return answer.data.supportedVersions;
}

const errorSchema = z.looseObject({ code: z.number(), msg: z.string(), details: z.string().optional() });

function failureOf(call: PluginCall, result: ProcessResult): NetnsError {
  const answer = errorSchema.safeParse(jsonOrUndefined(result.stdout));
  if (answer.success) {
    const { code, msg, details } = answer.data;
    const message = `CNI plugin ${call.plugin} (${call.command}): ${msg}${details ? `; ${details}` : ""} (code ${code})`;
    return new NetnsError({ code: "ERR_CNI_PLUGIN", plugin: call.plugin, command: call.command, cniCode: code }, message);
  }
  const how = result.signal ?? `exit code ${result.exitCode}`;
  return execError(call, `ended with ${how}: ${excerpt(result.stderr || result.stdout) || "no output"}`);
}

function execError(call: PluginCall, problem: string, cause?: unknown): NetnsError {
  const message = `CNI plugin ${call.plugin} (${call.command}): ${problem}`;
  return new NetnsError({ code: "ERR_CNI_EXEC", plugin: call.plugin, command: call.command }, message, { cause });
}

function abortReason(signal: AbortSignal): string {
  const reason: unknown = signal.reason;
  return `was stopped: ${reason instanceof Error ? reason.message : "the call was cancelled"}`;
}

function jsonOrUndefined(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function excerpt(text: string): string {
  const trimmed = text.trim();
  return trimmed.length <= 512 ? trimmed : `…${trimmed.slice(-512)}`;
}
