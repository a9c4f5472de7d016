/** What the network room is told. Times in milliseconds. */
export interface NetworkOptions {
  /** Directory of CNI configurations; the first by name decides. Need not exist yet. */
  readonly confDir: string;
  /** Where plugins are looked for, in order. */
  readonly binDirs: readonly string[];
  /** Directory of the durable attachment records, made when missing (mode 0700). */
  readonly stateDir: string;
  /** Of this daemon; kept in each record. */
  readonly instanceId: string;
  /** Environment of the plugins beside the CNI variables. They run iptables and the like, so it needs a PATH. Default: that alone. */
  readonly pluginEnv?: Readonly<Record<string, string>>;
  /** For the whole chain of one ADD. Default 90 s: below the kubelet's four minutes for RunPodSandbox. */
  readonly addTimeoutMs?: number;
  /** For the whole chain of one DEL, whatever became of the caller. Default 60 s. */
  readonly delTimeoutMs?: number;
  /** How often the configuration is read again beside the directory's own events. Default 2 s. */
  readonly pollIntervalMs?: number;
}

export type ResolvedOptions = Required<NetworkOptions>;

export function resolveOptions(options: NetworkOptions): ResolvedOptions {
  return {
    pluginEnv: { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" },
    addTimeoutMs: 90_000,
    delTimeoutMs: 60_000,
    pollIntervalMs: 2_000,
    ...options,
  };
}
