import { joinSignals, untilAborted, withDeadline } from "../lib/abort.ts";
import { messageOf } from "../lib/coded-error.ts";
import { failpoint } from "../lib/failpoint.ts";
import { KeyedQueue } from "../lib/keyed-queue.ts";
import type { Log } from "../lib/log.ts";
import { retry } from "../lib/retry.ts";
import type { Network, NetworkRequest, NetworkStatus, PodNetwork } from "../runtime/ports.ts";
import { type AttachmentRecord, AttachmentRecords } from "./attachment-record.ts";
import { type Attachment, addToNetwork, checkInNetwork, collectGarbage, deleteFromNetwork, POD_INTERFACE } from "./cni-chain.ts";
import { podIps } from "./cni-result.ts";
import { NetnsError, requestError } from "./errors.ts";
import { isPinnedNamespace } from "./netns-path.ts";
import { type NetworkOptions, type ResolvedOptions, resolveOptions } from "./options.ts";
import { endOrphanedPlugins } from "./orphans.ts";
import { type LoadedNetwork, NetworkReadiness } from "./readiness.ts";
import { cniArgs, portMappingsCapability, validatePodId, validateRequest } from "./request.ts";

interface CallOptions {
  readonly signal: AbortSignal;
}

/** The netns room. Disposing it cancels what attaches, gives what detaches a few seconds, and keeps every record. */
export interface NetworkRoom extends Network, AsyncDisposable {
  /** CNI CHECK of an attached pod. */
  check(podId: string, options: CallOptions): Promise<void>;
  /**
   * CNI GC: the plugins free what belongs to no attached pod of ours. Only for a network that no other runtime on the node uses: its
   * pods would lose their addresses.
   */
  collectGarbage(options: CallOptions): Promise<void>;
}

/** Resolves when the configuration has been read once, whatever came of it. */
export async function openNetwork(options: NetworkOptions, modules: { readonly log: Log }): Promise<NetworkRoom> {
  const resolved = resolveOptions(options);
  const records = await AttachmentRecords.open(resolved.stateDir);
  const readiness = await NetworkReadiness.open(resolved, modules);
  return new PodNetworks(resolved, { log: modules.log, records, readiness });
}

interface Modules {
  readonly log: Log;
  readonly records: AttachmentRecords;
  readonly readiness: NetworkReadiness;
}

const MAX_WAITING_PER_POD = 16;
const CLOSE_GRACE_MS = 5_000;
const DEL_BACKOFF = { baseMs: 1_000, maxMs: 60_000 };

class PodNetworks implements NetworkRoom {
  readonly #options: ResolvedOptions;
  readonly #log: Log;
  readonly #records: AttachmentRecords;
  readonly #readiness: NetworkReadiness;
  readonly #queue = new KeyedQueue({ maxWaiting: MAX_WAITING_PER_POD });
  readonly #detaching = new Map<string, Promise<void>>();
  readonly #retries = new Set<Promise<void>>();
  /** Ends what attaches and what waits for another try. */
  readonly #closing = new AbortController();
  /** Ends a DEL that outlasts the grace. */
  readonly #closed = new AbortController();

  constructor(options: ResolvedOptions, modules: Modules) {
    this.#options = options;
    this.#log = modules.log;
    this.#records = modules.records;
    this.#readiness = modules.readiness;
  }

  status(): NetworkStatus {
    return this.#readiness.status();
  }

  attached(): Promise<readonly string[]> {
    return this.#records.podIds();
  }

  async attach(request: NetworkRequest, { signal }: CallOptions): Promise<PodNetwork> {
    validateRequest(request);
    using joined = joinSignals(signal, this.#closing.signal);
    try {
      return await this.#queue.run(request.podId, joined.signal, () => this.#attach(request, joined.signal));
    } catch (error) {
      if (joined.signal.aborted) throw abortedError(request.podId, joined.signal, error);
      throw error;
    }
  }

  async detach(podId: string, { signal }: CallOptions): Promise<void> {
    validatePodId(podId);
    let work = this.#detaching.get(podId);
    if (work === undefined) {
      work = this.#queue.run(podId, this.#closing.signal, () => this.#detach(podId)).finally(() => this.#detaching.delete(podId));
      this.#detaching.set(podId, work);
    }
    try {
      await untilAborted(work, signal);
    } catch (error) {
      if (!signal.aborted) throw error;
      work.catch((late: unknown) => this.#log.warn("pod network could not be taken down after its caller left", { podId }, late));
      throw abortedError(podId, signal, error);
    }
  }

  async check(podId: string, { signal }: CallOptions): Promise<void> {
    validatePodId(podId);
    const record = await this.#records.get(podId);
    if (record?.phase !== "attached") throw requestError("podId", `${podId} has no network`);
    await checkInNetwork(attachmentOf(record, record.netnsPath), record.result, this.#options, { signal });
  }

  async collectGarbage({ signal }: CallOptions): Promise<void> {
    const { network, config } = this.#readiness.loaded();
    if (!config.disableGc) await collectGarbage(network, await this.attached(), this.#options, { signal });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const reason = new NetnsError({ code: "ERR_NETWORK_CLOSED" }, "the network room is closing");
    this.#closing.abort(reason);
    const timer = setTimeout(() => this.#closed.abort(reason), CLOSE_GRACE_MS);
    await this.#queue[Symbol.asyncDispose]();
    await Promise.allSettled(this.#retries);
    clearTimeout(timer);
    await this.#readiness[Symbol.asyncDispose]();
  }

  async #attach(request: NetworkRequest, signal: AbortSignal): Promise<PodNetwork> {
    const earlier = await this.#records.get(request.podId);
    if (earlier?.phase === "attached" && earlier.netnsPath === request.netnsPath && (await isPinnedNamespace(earlier.netnsPath))) {
      return { ips: earlier.ips, cniResult: earlier.result };
    }
    if (earlier !== undefined) await this.#delete(earlier);
    if (!(await isPinnedNamespace(request.netnsPath))) throw requestError("netnsPath", `${request.netnsPath} is not a pinned namespace`);
    await this.#readiness.reload();
    const record = this.#newRecord(request, this.#readiness.loaded());
    try {
      return await this.#add(record, signal);
    } catch (error) {
      await this.#rollBack(record);
      throw error;
    }
  }

  async #add(record: AttachmentRecord, signal: AbortSignal): Promise<PodNetwork> {
    failpoint("netns.record.before");
    await this.#records.put(record);
    failpoint("netns.record.after");
    using deadline = withDeadline(this.#options.addTimeoutMs, signal);
    failpoint("netns.add.before");
    const result = await addToNetwork(attachmentOf(record, record.netnsPath), this.#options, deadline);
    failpoint("netns.add.after");
    const ips = [...podIps(result, POD_INTERFACE)];
    await this.#records.put({ ...record, phase: "attached", ips, result });
    failpoint("netns.result.after");
    return { ips, cniResult: result };
  }

  #newRecord(request: NetworkRequest, { network, config }: LoadedNetwork): AttachmentRecord {
    const portMappings = portMappingsCapability(request.portMappings);
    if (portMappings.length > 0 && !network.plugins.some(({ capabilities }) => capabilities?.["portMappings"] === true)) {
      // Not an error: some networks map host ports from what they read in the cluster.
      this.#log.warn("no cni plugin of the network declares the portMappings capability", { podId: request.podId, file: config.file });
    }
    return {
      schemaVersion: 1,
      phase: "adding",
      instanceId: this.#options.instanceId,
      podId: request.podId,
      netnsPath: request.netnsPath,
      args: cniArgs(request),
      capabilities: portMappings.length === 0 ? {} : { portMappings },
      network: { ...network, plugins: [...network.plugins] },
      confFile: config.file,
    };
  }

  /** A DEL that fails here has nobody to repeat it: the pod was never made, so no one will ask to stop it. */
  async #rollBack(record: AttachmentRecord): Promise<void> {
    try {
      await this.#delete(record);
    } catch (error) {
      this.#log.warn("pod network could not be rolled back, will be tried again", { podId: record.podId }, error);
      const again = retry(() => this.#queue.run(record.podId, this.#closing.signal, () => this.#detach(record.podId)), {
        ...DEL_BACKOFF,
        attempts: Number.POSITIVE_INFINITY,
        signal: this.#closing.signal,
        retryable: () => true,
      })
        .catch(() => {})
        .finally(() => this.#retries.delete(again));
      this.#retries.add(again);
    }
  }

  async #detach(podId: string): Promise<void> {
    let record: AttachmentRecord | undefined;
    try {
      record = await this.#records.get(podId);
    } catch (error) {
      if (!(error instanceof NetnsError)) throw error;
      return await this.#detachUnknown(podId, error);
    }
    if (record !== undefined) await this.#delete(record);
  }

  async #delete(record: AttachmentRecord): Promise<void> {
    using deadline = withDeadline(this.#options.delTimeoutMs, this.#closed.signal);
    if (record.phase === "adding") await endOrphanedPlugins(record.podId, this.#options.binDirs, deadline);
    const netnsPath = (await isPinnedNamespace(record.netnsPath)) ? record.netnsPath : "";
    const result = record.phase === "attached" ? record.result : undefined;
    failpoint("netns.del.before");
    await deleteFromNetwork(attachmentOf(record, netnsPath), result, this.#options, deadline);
    failpoint("netns.del.after");
    await this.#records.remove(record.podId);
    failpoint("netns.remove.after");
  }

  /** Without a readable record the address can still be freed, by today's configuration. The record is put aside for a person. */
  async #detachUnknown(podId: string, problem: NetnsError): Promise<void> {
    const { network } = this.#readiness.loaded();
    const args = cniArgs({ podId, podName: "", podNamespace: "", podUid: "" });
    using deadline = withDeadline(this.#options.delTimeoutMs, this.#closed.signal);
    await deleteFromNetwork({ network, containerId: podId, netnsPath: "", args, capabilities: {} }, undefined, this.#options, deadline);
    const file = await this.#records.putAside(podId);
    this.#log.error("network record was unreadable: address freed, host port rules may be left", { podId, file }, problem);
  }
}

function attachmentOf(record: AttachmentRecord, netnsPath: string): Attachment {
  return { network: record.network, containerId: record.podId, netnsPath, args: record.args, capabilities: record.capabilities };
}

function abortedError(podId: string, signal: AbortSignal, cause: unknown): NetnsError {
  const message = `network of pod ${podId}: the call was cancelled (${messageOf(signal.reason)})`;
  return new NetnsError({ code: "ERR_NETWORK_ABORTED", podId }, message, { cause });
}
