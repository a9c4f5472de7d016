import type { PluginConfig } from "./cni-config.ts";
import { callPlugin, type PluginHost } from "./cni-plugin.ts";
import { type CniResult, parseResult } from "./cni-result.ts";
import { atLeast } from "./cni-version.ts";
import { NetnsError, resultError } from "./errors.ts";

/** A network, its version settled. This is what an attachment keeps of its configuration. */
export interface CniNetwork {
  readonly name: string;
  readonly cniVersion: string;
  readonly plugins: readonly PluginConfig[];
}

/** One pod's membership in a network: the same for ADD, CHECK and DEL. */
export interface Attachment {
  readonly network: CniNetwork;
  readonly containerId: string;
  /** Empty when the namespace is gone. */
  readonly netnsPath: string;
  /** CNI_ARGS. */
  readonly args: string;
  /** Capability name to its value; a plugin gets those it declares. */
  readonly capabilities: Readonly<Record<string, unknown>>;
}

export const POD_INTERFACE = "eth0";

interface CallOptions {
  readonly signal: AbortSignal;
}

/** ADD through the chain; each plugin sees the result of the one before. Undoing a failure is the caller's. */
export async function addToNetwork(attachment: Attachment, host: PluginHost, options: CallOptions): Promise<CniResult> {
  const { network } = attachment;
  let result: CniResult | undefined;
  for (const plugin of network.plugins) {
    const config = executionConfig(attachment, plugin, result);
    const answer = await callPlugin({ plugin: plugin.type, command: "ADD", config, variables: variablesOf(attachment) }, host, options);
    if (answer === undefined) throw resultError(`plugin ${plugin.type} (ADD) printed none`);
    result = parseResult(answer, network.cniVersion);
  }
  if (result === undefined) throw resultError("the list has no plugins");
  return result;
}

/** DEL through the chain, last plugin first, each with the final result of ADD when there was one. Stops at the first failure. */
export async function deleteFromNetwork(
  attachment: Attachment,
  result: CniResult | undefined,
  host: PluginHost,
  options: CallOptions,
): Promise<void> {
  const prevResult = atLeast(attachment.network.cniVersion, "0.4.0") ? result : undefined;
  for (const plugin of attachment.network.plugins.toReversed()) {
    const config = executionConfig(attachment, plugin, prevResult);
    await callPlugin({ plugin: plugin.type, command: "DEL", config, variables: variablesOf(attachment) }, host, options);
  }
}

/** CHECK through the chain. Older versions have none: nothing is done. */
export async function checkInNetwork(attachment: Attachment, result: CniResult, host: PluginHost, options: CallOptions): Promise<void> {
  if (!atLeast(attachment.network.cniVersion, "0.4.0")) return;
  for (const plugin of attachment.network.plugins) {
    const config = executionConfig(attachment, plugin, result);
    await callPlugin({ plugin: plugin.type, command: "CHECK", config, variables: variablesOf(attachment) }, host, options);
  }
}

/** STATUS of each plugin. Throws the first that cannot serve an ADD. Before 1.1.0 there is none. */
export async function networkStatus(network: CniNetwork, host: PluginHost, options: CallOptions): Promise<void> {
  if (!atLeast(network.cniVersion, "1.1.0")) return;
  for (const plugin of network.plugins) {
    await callPlugin({ plugin: plugin.type, command: "STATUS", config: networkConfig(network, plugin), variables: {} }, host, options);
  }
}

/** GC through the whole chain: plugins free what belongs to none of `containerIds`. Failures are gathered. Before 1.1.0 there is none. */
export async function collectGarbage(
  network: CniNetwork,
  containerIds: readonly string[],
  host: PluginHost,
  options: CallOptions,
): Promise<void> {
  if (!atLeast(network.cniVersion, "1.1.0")) return;
  // The first text of the spec named the key without "valid".
  const valid = containerIds.map((containerID) => ({ containerID, ifname: POD_INTERFACE }));
  const failures: unknown[] = [];
  for (const plugin of network.plugins) {
    const config = { ...networkConfig(network, plugin), "cni.dev/valid-attachments": valid, "cni.dev/attachments": valid };
    const call = callPlugin({ plugin: plugin.type, command: "GC", config, variables: {} }, host, options);
    await call.catch((error: unknown) => failures.push(error));
  }
  if (failures[0] instanceof NetnsError) throw failures[0];
  if (failures.length > 0) throw new AggregateError(failures, "CNI GC failed");
}

/** What a plugin is sent without an attachment: its own keys under the list's name and version. `capabilities` is the runtime's key. */
function networkConfig(network: CniNetwork, plugin: PluginConfig): Record<string, unknown> {
  const { capabilities: _capabilities, ...own } = plugin;
  return { ...own, name: network.name, cniVersion: network.cniVersion };
}

function executionConfig(attachment: Attachment, plugin: PluginConfig, prevResult: CniResult | undefined): Record<string, unknown> {
  const runtimeConfig: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(attachment.capabilities)) {
    if (plugin.capabilities?.[name] === true) runtimeConfig[name] = value;
  }
  return {
    ...networkConfig(attachment.network, plugin),
    ...(Object.keys(runtimeConfig).length === 0 ? {} : { runtimeConfig }),
    ...(prevResult === undefined ? {} : { prevResult }),
  };
}

function variablesOf(attachment: Attachment): Record<string, string> {
  return {
    CNI_CONTAINERID: attachment.containerId,
    CNI_NETNS: attachment.netnsPath,
    CNI_IFNAME: POD_INTERFACE,
    CNI_ARGS: attachment.args,
  };
}
