import { join } from "node:path";

import type { Prefix } from "../harness/prefix.ts";

/** The directories of a kubelet below a prefix, and its port. */
export interface KubeletPlaces {
  readonly rootDir: string;
  readonly staticPodDir: string;
  readonly podLogsDir: string;
  readonly certDir: string;
  readonly pluginDir: string;
  readonly configPath: string;
  readonly resolvPath: string;
  readonly logPath: string;
  /** On the loopback. */
  readonly port: number;
}

export function kubeletPlaces(prefix: Prefix, port: number): KubeletPlaces {
  const dir = join(prefix.dir, "kubelet");
  return {
    rootDir: join(dir, "root"),
    staticPodDir: join(dir, "static-pods"),
    podLogsDir: join(dir, "pod-logs"),
    certDir: join(dir, "pki"),
    pluginDir: join(dir, "volume-plugins"),
    configPath: join(dir, "kubelet.json"),
    resolvPath: join(dir, "resolv.conf"),
    logPath: join(dir, "kubelet.log"),
    port,
  };
}

/** A KubeletConfiguration for static pods without an API server, which keeps to its prefix: directories, cgroups, the loopback, no packet filter. */
export function kubeletConfiguration(prefix: Prefix, places: KubeletPlaces): object {
  return {
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    containerRuntimeEndpoint: `unix://${prefix.socketPath}`,
    staticPodPath: places.staticPodDir,
    podLogsDir: places.podLogsDir,
    volumePluginDir: places.pluginDir,
    resolvConf: places.resolvPath,
    address: "127.0.0.1",
    port: places.port,
    healthzPort: 0,
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: "AlwaysAllow" },
    cgroupDriver: "cgroupfs",
    cgroupRoot: prefix.cgroupParent,
    enforceNodeAllocatable: [],
    failCgroupV1: false,
    failSwapOn: false,
    makeIPTablesUtilChains: false,
    oomScoreAdj: 0,
    // The disk is the machine's: how full it is says nothing about the test.
    evictionHard: { "memory.available": "1Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%" },
    imageGCHighThresholdPercent: 100,
    imageGCLowThresholdPercent: 99,
    // A crash and what follows in seconds.
    crashLoopBackOff: { maxContainerRestartPeriod: "2s" },
    syncFrequency: "2s",
    logging: { verbosity: 2 },
  };
}
