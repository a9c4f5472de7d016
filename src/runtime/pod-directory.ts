import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { hostnameFile, hostsFile, resolvConfFile } from "./pod-files.ts";
import type { PodNetwork } from "./ports.ts";
import { podStateDir, type RuntimeOptions } from "./runtime.ts";
import type { SandboxConfig } from "./sandbox-config.ts";

/** Default size of a pod's /dev/shm, as other runtimes have it. */
export const SHM_SIZE_BYTES = 64n * 1024n * 1024n;

/** What a pod's containers share, as paths under the pod's state directory. */
export interface PodFilePaths {
  readonly namespaces: string;
  readonly shm: string;
  readonly hosts: string;
  readonly resolvConf: string;
  readonly hostname: string;
}

export function podFilePaths(stateDir: string, podId: string): PodFilePaths {
  const dir = podStateDir(stateDir, podId);
  return {
    namespaces: join(dir, "ns"),
    shm: join(dir, "shm"),
    hosts: join(dir, "etc", "hosts"),
    resolvConf: join(dir, "etc", "resolv.conf"),
    hostname: join(dir, "etc", "hostname"),
  };
}

/** A client that gives no host name gets the node's, as with every other runtime. */
export function podHostname(options: RuntimeOptions, config: SandboxConfig): string {
  return config.hostname === "" ? options.nodeName : config.hostname;
}

/** Throws `ERR_INVALID` for values that could not stand in the files, before anything of the pod is made. */
export function checkPodFiles(config: SandboxConfig): void {
  if (config.hostname !== "") hostnameFile(config.hostname);
  resolvConfFile(config.dns, "");
}

/** What the files of a pod hold. `network` is undefined on the host's network. */
export interface PodFileTexts {
  readonly hostname: string;
  readonly hosts: string;
  readonly resolvConf: string;
}

export async function podFileTexts(options: RuntimeOptions, config: SandboxConfig, network: PodNetwork | undefined): Promise<PodFileTexts> {
  const hostname = podHostname(options, config);
  const [hostHosts, hostResolvConf] = await Promise.all([readOrEmpty("/etc/hosts"), readOrEmpty("/etc/resolv.conf")]);
  return {
    hostname: hostnameFile(hostname),
    // On the host's network the host's own names hold.
    hosts: network === undefined ? hostHosts : hostsFile({ hostname, ips: network.ips }),
    resolvConf: resolvConfFile(config.dns, hostResolvConf),
  };
}

export async function writePodFiles(paths: PodFilePaths, texts: PodFileTexts): Promise<void> {
  await mkdir(join(paths.hosts, ".."), { recursive: true, mode: 0o755 });
  await Promise.all([
    writeFile(paths.hostname, texts.hostname),
    writeFile(paths.hosts, texts.hosts),
    writeFile(paths.resolvConf, texts.resolvConf),
  ]);
}

async function readOrEmpty(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return "";
    throw error;
  }
}
