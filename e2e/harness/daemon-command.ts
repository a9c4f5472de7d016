import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";

import type { Prefix } from "./prefix.ts";
import type { PodMode, RuntimeKind } from "./settings.ts";
import { peersDir, podsUnderTest, repositoryDir } from "./settings.ts";

/** How the daemon of a runtime is started on a prefix. */
export interface DaemonCommand {
  readonly program: string;
  readonly args: readonly string[];
}

export interface DaemonOptions {
  /** containerd's sandbox image; ours needs none. */
  readonly pauseReference?: string;
  /** Ours: where pods run; as the environment says when left out. */
  readonly pods?: PodMode;
  /** Ours: keys of the configuration, over those that a test node has. */
  readonly config?: ConfigTables;
}

/** TOML: keys by table. */
export type ConfigTables = Readonly<Record<string, Readonly<Record<string, string | number | readonly string[]>>>>;

/** Writes the configuration file of `kind` for `prefix`. */
export async function daemonCommand(kind: RuntimeKind, prefix: Prefix, options: DaemonOptions = {}): Promise<DaemonCommand> {
  const configPath = join(prefix.dir, "config.toml");
  switch (kind) {
    case "aurae-cri":
      await writeFile(configPath, renderToml(ourConfig(prefix, options)));
      return {
        program: join(repositoryDir, "bin", "aurae-cri"),
        args: [
          "serve",
          "--config",
          configPath,
          "--root",
          prefix.rootDir,
          "--state",
          prefix.stateDir,
          "--listen",
          `unix://${prefix.socketPath}`,
        ],
      };
    case "containerd":
      await writeFile(configPath, containerdConfig(prefix, options.pauseReference ?? ""));
      return { program: join(peersDir(), "bin", "containerd"), args: ["--config", configPath] };
  }
}

function ourConfig(prefix: Prefix, { pods = podsUnderTest(), config = {} }: DaemonOptions): ConfigTables {
  const usual: ConfigTables = {
    cni: { conf_dir: prefix.cniConfDir, bin_dirs: cniBinDirs() },
    registry: { config_path: prefix.hostsDir },
    ...podConfig[pods],
    oci: { bundle_dir: join(prefix.dir, "bundles") },
    log: { level: "debug" },
  };
  const names = new Set([...Object.keys(usual), ...Object.keys(config)]);
  return Object.fromEntries([...names].map((name) => [name, { ...usual[name], ...config[name] }]));
}

const podConfig: Readonly<Record<PodMode, ConfigTables>> = {
  flat: { vm: { accelerator: "off" }, placement: { default: "flat" } },
  microvm: { vm: { accelerator: "tcg" }, placement: { default: "require-vm" } },
  both: { vm: { accelerator: "tcg" }, placement: { default: "prefer-vm" } },
};

/** What JSON and TOML write alike. */
function renderToml(tables: ConfigTables): string {
  const lines = Object.entries(tables).flatMap(([name, keys]) => [
    `[${name}]`,
    ...Object.entries(keys).map(([key, value]) => `${key} = ${JSON.stringify(value)}`),
  ]);
  return `${lines.join("\n")}\n`;
}

/** NRI is off because its socket is one for the whole machine. */
function containerdConfig(prefix: Prefix, pauseReference: string): string {
  return `version = 3
root = ${JSON.stringify(prefix.rootDir)}
state = ${JSON.stringify(prefix.stateDir)}
disabled_plugins = ["io.containerd.nri.v1.nri"]

[grpc]
address = ${JSON.stringify(prefix.socketPath)}

[ttrpc]
address = ${JSON.stringify(`${prefix.socketPath}.ttrpc`)}

[plugins."io.containerd.cri.v1.images".registry]
config_path = ${JSON.stringify(prefix.hostsDir)}

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = ${JSON.stringify(pauseReference)}

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
conf_dir = ${JSON.stringify(prefix.cniConfDir)}
bin_dirs = ${JSON.stringify(cniBinDirs())}

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = ${JSON.stringify(join(peersDir(), "bin", "runc"))}
`;
}

/** The plugins that the peers bring, else the distribution's. */
export function cniBinDirs(): string[] {
  return [join(peersDir(), "cni"), join(peersDir(), "bin"), "/opt/cni/bin", "/usr/lib/cni"].filter((dir) =>
    existsSync(join(dir, "bridge")),
  );
}
