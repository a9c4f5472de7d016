import { stat } from "node:fs/promises";
import { withDeadline } from "../lib/abort.ts";
import { messageOf } from "../lib/coded-error.ts";
import type { Log } from "../lib/log.ts";
import type { NetworkStatus } from "../runtime/ports.ts";
import { type CniNetwork, networkStatus } from "./cni-chain.ts";
import { loadNetworkConfig, type NetworkConfig } from "./cni-config.ts";
import { findPlugin, pluginVersions } from "./cni-plugin.ts";
import { negotiate } from "./cni-version.ts";
import { DirectoryWatch } from "./directory-watch.ts";
import { NetnsError } from "./errors.ts";
import type { ResolvedOptions } from "./options.ts";

/** A configuration that pods can be attached with: all plugins are there and speak one version. */
export interface LoadedNetwork {
  readonly network: CniNetwork;
  readonly config: NetworkConfig;
}

type Readiness =
  | { readonly kind: "ready"; readonly loaded: LoadedNetwork }
  /** Loaded, but a plugin's STATUS says that it cannot serve. ADD is still worth a try. */
  | { readonly kind: "unwell"; readonly loaded: LoadedNetwork; readonly message: string }
  | { readonly kind: "not-ready"; readonly message: string };

/** The reason that CRI clients know. */
const NOT_READY = "NetworkPluginNotReady";

/** Files are often written in several steps: events closer than this are one. */
const DEBOUNCE_MS = 100;
const STATUS_TIMEOUT_MS = 5_000;
const STATUS_MAX_AGE_MS = 5_000;

/** Keeps the node's CNI configuration loaded: by the directory's events, by polling, and on demand. */
export class NetworkReadiness implements AsyncDisposable {
  readonly #options: ResolvedOptions;
  readonly #log: Log;
  readonly #watch: DirectoryWatch;
  readonly #closing = new AbortController();
  /** What each plugin binary speaks; asked once per file and content. */
  readonly #versions = new Map<string, readonly string[] | undefined>();
  #state: Readiness = { kind: "not-ready", message: "the CNI configuration has not been read yet" };
  #health: { readonly key: string; readonly atMs: number; readonly problem: string | undefined } | undefined;
  #asking: Promise<void> | undefined;
  /** The reading that has not begun. */
  #pending: Promise<void> | undefined;
  /** The reading that was asked for last. */
  #last: Promise<void> = Promise.resolve();
  #debounce: NodeJS.Timeout | undefined;
  #poll: NodeJS.Timeout | undefined;

  private constructor(options: ResolvedOptions, log: Log) {
    this.#options = options;
    this.#log = log;
    this.#watch = new DirectoryWatch(options.confDir, () => this.#soon());
  }

  /** Resolves when the configuration has been read once, whatever came of it. */
  static async open(options: ResolvedOptions, modules: { readonly log: Log }): Promise<NetworkReadiness> {
    const readiness = new NetworkReadiness(options, modules.log);
    await readiness.reload();
    readiness.#poll = setInterval(() => void readiness.reload(), options.pollIntervalMs).unref();
    return readiness;
  }

  status(): NetworkStatus {
    const state = this.#state;
    if (state.kind !== "ready") return { ready: false, reason: NOT_READY, message: state.message };
    return { ready: true, networkName: state.loaded.network.name, confFile: state.loaded.config.file };
  }

  /** Throws ERR_CNI_NOT_READY with the message of the status. */
  loaded(): LoadedNetwork {
    if (this.#state.kind !== "not-ready") return this.#state.loaded;
    throw new NetnsError({ code: "ERR_CNI_NOT_READY", reason: NOT_READY }, `network not ready: ${this.#state.message}`);
  }

  /** Reads everything anew. Never rejects. A call joins a reading that has not begun, never one under way, which may have read the old file. */
  reload(): Promise<void> {
    if (this.#pending !== undefined) return this.#pending;
    const reading = this.#last.then(async () => {
      this.#pending = undefined;
      if (this.#closing.signal.aborted) return;
      this.#watch.refresh();
      this.#enter(await this.#read());
    });
    this.#pending = reading;
    this.#last = reading;
    return reading;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new DOMException("the network room is closing", "AbortError"));
    clearInterval(this.#poll);
    clearTimeout(this.#debounce);
    this.#watch[Symbol.dispose]();
    await this.#last;
    await this.#asking;
  }

  #soon(): void {
    clearTimeout(this.#debounce);
    this.#debounce = setTimeout(() => void this.reload(), DEBOUNCE_MS).unref();
  }

  async #read(): Promise<Readiness> {
    try {
      const config = await loadNetworkConfig(this.#options.confDir);
      const loaded = { config, network: await this.#settleVersion(config) };
      const problem = await this.#problemOf(loaded.network);
      return problem === undefined ? { kind: "ready", loaded } : { kind: "unwell", loaded, message: `${config.file}: ${problem}` };
    } catch (error) {
      return { kind: "not-ready", message: messageOf(error) };
    }
  }

  /** What the plugins' STATUS said last. Asked for and waited for when the network is new; later asked again in the background. */
  async #problemOf(network: CniNetwork): Promise<string | undefined> {
    const key = JSON.stringify(network);
    if (this.#health?.key !== key) await this.#askStatus(network, key);
    else if (Date.now() - this.#health.atMs > STATUS_MAX_AGE_MS) this.#asking ??= this.#askStatus(network, key);
    return this.#health?.problem;
  }

  async #askStatus(network: CniNetwork, key: string): Promise<void> {
    using deadline = withDeadline(STATUS_TIMEOUT_MS, this.#closing.signal);
    const problem = await networkStatus(network, this.#options, deadline).then(() => undefined, messageOf);
    this.#health = { key, atMs: Date.now(), problem };
    this.#asking = undefined;
  }

  async #settleVersion(config: NetworkConfig): Promise<CniNetwork> {
    const spoken: (readonly string[] | undefined)[] = [];
    for (const plugin of config.plugins) spoken.push(await this.#versionsOf(plugin.type, config.file));
    const cniVersion = negotiate(config.cniVersions, spoken);
    if (cniVersion !== undefined) return { name: config.name, cniVersion, plugins: config.plugins };
    const said = config.plugins.map((plugin, index) => `${plugin.type} speaks ${spoken[index]?.join(", ") ?? "unknown versions"}`);
    throw new NetnsError(
      { code: "ERR_CNI_CONFIG", file: config.file },
      `${config.file}: no plugin chain for cniVersion ${config.cniVersions.join(", ")}: ${said.join("; ")}`,
    );
  }

  async #versionsOf(plugin: string, confFile: string): Promise<readonly string[] | undefined> {
    const file = await findPlugin(plugin, this.#options.binDirs).catch((error: unknown) => {
      throw new NetnsError({ code: "ERR_CNI_CONFIG", file: confFile }, `${confFile}: ${messageOf(error)}`, { cause: error });
    });
    const { ino, size, mtimeMs } = await stat(file);
    const key = `${file} ${ino} ${size} ${mtimeMs}`;
    if (!this.#versions.has(key)) {
      // A plugin that cannot answer may still work, as it does with runtimes that never ask.
      const answer = await pluginVersions(plugin, this.#options, this.#closing).catch((error: unknown) => {
        this.#log.warn("cni plugin does not say which versions it speaks", { plugin, file }, error);
        return undefined;
      });
      this.#versions.set(key, answer);
    }
    return this.#versions.get(key);
  }

  #enter(next: Readiness): void {
    const before = this.status();
    this.#state = next;
    const after = this.status();
    if (JSON.stringify(before) === JSON.stringify(after)) return;
    if (after.ready) this.#log.info("pod network is ready", { network: after.networkName, file: after.confFile });
    else this.#log.warn("pod network is not ready", { reason: after.reason, message: after.message });
  }
}
