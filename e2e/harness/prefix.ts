import { chmod, mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeCgroup } from "./cgroup.ts";
import type { NetworkSlot } from "./ports.ts";
import { takeNetworkSlot } from "./ports.ts";
import { cgroupDriver } from "./settings.ts";

/** What the directories of all prefixes begin with. */
export const prefixStart = join(tmpdir(), "ae2e-");

/** Everything that one runtime under test owns on this machine: a directory, a bridge and a subnet. */
export interface Prefix {
  readonly dir: string;
  readonly rootDir: string;
  readonly stateDir: string;
  readonly socketPath: string;
  readonly cniConfDir: string;
  /** containerd's `certs.d` layout: one directory with a `hosts.toml` per registry host. */
  readonly hostsDir: string;
  readonly logsDir: string;
  /** A cgroup for pods that name a parent. As the kubelet would, the harness makes and removes it. */
  readonly cgroupParent: string;
  readonly network: NetworkSlot;
}

/** A short path, because a unix socket's holds 107 bytes. */
export async function createPrefix(): Promise<Prefix> {
  const dir = await mkdtemp(prefixStart);
  // As the directories above a runtime's own are: root of a user namespace must reach its root file system.
  await chmod(dir, 0o755);
  const network = await takeNetworkSlot();
  const prefix: Prefix = {
    dir,
    rootDir: join(dir, "root"),
    stateDir: join(dir, "state"),
    socketPath: join(dir, "cri.sock"),
    cniConfDir: join(dir, "net.d"),
    hostsDir: join(dir, "certs.d"),
    logsDir: join(dir, "logs"),
    cgroupParent: cgroupDriver() === "systemd" ? `/${network.bridge.replace("-", "_")}.slice` : `/${network.bridge}`,
    network,
  };
  for (const path of [prefix.rootDir, prefix.stateDir, prefix.cniConfDir, prefix.hostsDir, prefix.logsDir])
    await mkdir(path, { recursive: true });
  await makeCgroup(prefix.cgroupParent);
  await writeFile(join(prefix.cniConfDir, "10-e2e.conflist"), JSON.stringify(networkList(prefix), undefined, 2));
  return prefix;
}

/** Cgroups that the harness makes: the one that stands for the kubelet's, and those in which a benchmark counts. */
export function harnessCgroups(prefix: Prefix): string[] {
  return ["", "/daemon", "/pods"].map((name) => prefix.cgroupParent + name);
}

/** Tells the runtime where `registryHost` is really served. Reading `hosts.toml` needs no restart. */
export async function writeHosts(prefix: Prefix, registryHost: string, content: string): Promise<void> {
  await mkdir(join(prefix.hostsDir, registryHost), { recursive: true });
  await writeFile(join(prefix.hostsDir, registryHost, "hosts.toml"), content);
}

function networkList(prefix: Prefix) {
  return {
    cniVersion: "1.0.0",
    name: prefix.network.bridge,
    plugins: [
      {
        type: "bridge",
        bridge: prefix.network.bridge,
        isGateway: true,
        ipMasq: true,
        hairpinMode: true,
        ipam: {
          type: "host-local",
          dataDir: join(prefix.dir, "ipam"),
          ranges: [[{ subnet: `${prefix.network.prefix}.0/24` }]],
          routes: [{ dst: "0.0.0.0/0" }],
        },
      },
      // `snat` lets a connection from 127.0.0.1 reach a hostPort.
      { type: "portmap", capabilities: { portMappings: true }, snat: true },
    ],
  };
}
