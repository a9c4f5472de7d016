import { chmod, mkdir } from "node:fs/promises";
import { availableParallelism, hostname } from "node:os";
import { join } from "node:path";

import { CdiDevices } from "./cdi/cdi.ts";
import type { Config } from "./config/config.ts";
import type { Edge } from "./cri/adapter.ts";
import { serve } from "./cri/server.ts";
import { AuraedHost } from "./host/auraed.ts";
import { readBootId } from "./host/boot-id.ts";
import { isSystemdRunning, pickCgroupDriver } from "./host/cgroups.ts";
import { LayerMounts } from "./host/layer-mounts.ts";
import { readHostFacts } from "./host/oci-facts.ts";
import { removeOwnCgroups } from "./host/own-cgroups.ts";
import { openImages } from "./image/images.ts";
import { type ImageOptions, imageDefaults } from "./image/options.ts";
import { KeyedQueue } from "./lib/keyed-queue.ts";
import type { Log } from "./lib/log.ts";
import { Turns } from "./lib/turns.ts";
import { noMetrics } from "./metrics/no-metrics.ts";
import type { MetricsSource } from "./metrics/options.ts";
import { openNetwork } from "./netns/network.ts";
import type { ContainerRecord } from "./runtime/container.ts";
import { Events } from "./runtime/events.ts";
import { Names } from "./runtime/names.ts";
import { CAPABILITIES } from "./runtime/oci/capabilities.ts";
import { Refusals } from "./runtime/placement/refusals.ts";
import type { PodRecord } from "./runtime/pod.ts";
import type { Metrics } from "./runtime/ports.ts";
import { recover } from "./runtime/recover.ts";
import type { Runtime, RuntimeOptions } from "./runtime/runtime.ts";
import { History } from "./store/history.ts";
import { openInstanceId } from "./store/instance.ts";
import { rebuild } from "./store/pod-records.ts";
import { lockDirectory } from "./store/root-lock.ts";
import { openStore } from "./store/store.ts";
import type { StreamingOptions } from "./streaming/options.ts";
import { openStreaming } from "./streaming/server.ts";
import { MachineTemplates } from "./vm/templates.ts";
import { NodeVirtualization } from "./vm/virtualization.ts";
import { QemuVmm } from "./vm/vmm.ts";
import { vmOptions } from "./vm-options.ts";

/** Longest state directory under which a pod's socket path still fits the 107 bytes that a unix address holds. */
const MAX_STATE_DIR_BYTES = 107 - "/pods/0123456789abcdef/auraed.sock".length;

/** Operations that may wait for one pod. */
const MAX_WAITING_PER_POD = 256;
/** Longer than a boot takes, under emulation on a busy host as well. */
const BOOT_TURN_MS = 30_000;

/**
 * The composition root: makes every room from the configuration, brings back what the last daemon left, and serves. Disposing of the result
 * drains the calls under way and closes the rooms in reverse; pods go on without the daemon.
 */
export async function openDaemon(config: Config, modules: { readonly log: Log; readonly failpoints: string }): Promise<AsyncDisposable> {
  const { log } = modules;
  await using stack = new AsyncDisposableStack();
  checkStateDir(config.state);
  stack.use(lockDirectory(config.root));
  if (config.state !== config.root) stack.use(lockDirectory(config.state));
  await mkdir(join(config.root, "pods"), { recursive: true, mode: 0o700 });
  await openPodsDir(join(config.state, "pods"));
  const host = stack.use(new AuraedHost({ auraedPath: config.auraed.path, ociRuntime: config.oci.runtime }));
  // Beside all that is opened meanwhile.
  const userNamespaces = host.userNamespaceSupport(config.state);
  await mkdir(config.oci.bundleDir, { recursive: true, mode: 0o711 });

  const instanceId = await openInstanceId(config.root);
  const opened = await openStore({
    path: join(config.root, "aurae-cri.db"),
    log: log.child({ room: "store" }),
    failpoints: modules.failpoints,
  });
  const store = stack.use(opened.store);
  const complete = opened.condition === "opened";
  if (!complete) await rebuildFromPods(config, store, log);

  const network = stack.use(
    await openNetwork(
      { confDir: config.cni.confDir, binDirs: config.cni.binDirs, stateDir: join(config.root, "network"), instanceId },
      { log: log.child({ room: "netns" }) },
    ),
  );
  const images = stack.use(
    await openImages(imageOptions(config), {
      store,
      log: log.child({ room: "image" }),
      layerMounter: new LayerMounts({ auraedPath: config.auraed.path }),
    }),
  );

  const shutdown = new AbortController();
  const options = await runtimeOptions(config, { instanceId, userNamespaces: await userNamespaces });
  stack.defer(() => removeOwnCgroups(instanceId, options.cgroupDriver));
  const actions = stack.use(new KeyedQueue({ maxWaiting: MAX_WAITING_PER_POD }));
  stack.defer(() => shutdown.abort(new Error("the daemon is shutting down")));
  const pods: Runtime["pods"] = new Map();
  const virtualization = stack.use(NodeVirtualization.open(vmOptions(config, options.bootId), { log: log.child({ room: "vm" }) }));
  const vmm = await openVmm(config, stack, { virtualization, log: log.child({ room: "vm" }) });
  const metrics = await openMetrics(config.metrics, stack, log, {
    pods: () => pods.values().map(({ record }) => ({ mode: record.placement.mode, state: record.state.phase })),
    virtualization: () => virtualization.report(),
  });
  const runtime: Runtime = {
    options,
    log: log.child({ room: "runtime" }),
    store,
    images,
    cdi: new CdiDevices({ specDirs: config.cdi.specDirs }, { log: log.child({ room: "cdi" }) }),
    network,
    host,
    virtualization,
    vmm,
    metrics,
    history: await History.open(join(config.root, "history")),
    pods,
    containers: new Map(),
    podNames: new Names(),
    containerNames: new Names(),
    actions,
    rates: new Map(),
    boots: new Turns({ limit: availableParallelism(), longestMs: BOOT_TURN_MS }),
    refusals: new Refusals(),
    events: new Events({ maxWaiting: config.events.maxWaiting }, { log: log.child({ room: "runtime" }) }),
    shutdown: shutdown.signal,
  };
  await recover(runtime, { ...(await readRecords(runtime)), complete });
  const streaming = stack.use(await openStreaming(streamingOptions(config.streaming), { runtime, log: log.child({ room: "streaming" }) }));
  const edge: Edge = { runtime, streamUrls: streaming, log: log.child({ room: "cri" }), shutdown: shutdown.signal };
  stack.use(await serve(config.listen, edge));
  // Before the server waits for its calls: a stream of events has no end of its own.
  stack.defer(() => runtime.events.close());
  log.info("serving", { socket: config.listen, pods: runtime.pods.size, containers: runtime.containers.size, instanceId });
  return stack.move();
}

/** Loaded only where somebody may ask: the collector takes memory and time at every start. */
async function openMetrics(config: Config["metrics"], stack: AsyncDisposableStack, log: Log, source: MetricsSource): Promise<Metrics> {
  if (config.port === 0) return noMetrics;
  const [{ PodMetrics }, { serveMetrics }] = await Promise.all([import("./metrics/metrics.ts"), import("./metrics/server.ts")]);
  const metrics = new PodMetrics(source);
  stack.use(await serveMetrics(config, { metrics, log: log.child({ room: "metrics" }) }));
  log.info("serving metrics", { address: config.address, port: config.port });
  return metrics;
}

function checkStateDir(stateDir: string): void {
  if (Buffer.byteLength(stateDir) <= MAX_STATE_DIR_BYTES) return;
  throw new Error(
    `state: '${stateDir}' is longer than ${MAX_STATE_DIR_BYTES} bytes, which leaves no room for the pods' socket paths: choose a shorter one`,
  );
}

/** Root of a pod's user namespace, a stranger here, passes through to its own pod's directory; none of them can be listed. */
async function openPodsDir(dir: string): Promise<void> {
  await mkdir(dir, { recursive: true });
  await chmod(dir, 0o711);
}

function imageOptions(config: Config): ImageOptions {
  return {
    ...imageDefaults,
    root: config.root,
    stateDir: config.state,
    registryConfigPath: config.registry.configPath,
    platform: { os: "linux", architecture: process.arch === "x64" ? "amd64" : process.arch, variant: "" },
    maxLayersAtOnce: config.image.maxConcurrentDownloads,
    noProgressTimeoutMs: config.image.noProgressTimeoutMs,
    pinnedImages: config.image.pinned,
  };
}

function streamingOptions({ address, port, tlsCertFile, tlsKeyFile, idleTimeoutMs }: Config["streaming"]): StreamingOptions {
  const tls = tlsCertFile === "" ? undefined : { certFile: tlsCertFile, keyFile: tlsKeyFile };
  return { address, port, tls, idleTimeoutMs };
}

async function runtimeOptions(
  config: Config,
  { instanceId, userNamespaces }: Pick<RuntimeOptions, "instanceId" | "userNamespaces">,
): Promise<RuntimeOptions> {
  const { capabilityMask, ...hostFacts } = await readHostFacts();
  return {
    rootDir: config.root,
    stateDir: config.state,
    bundleDir: config.oci.bundleDir,
    instanceId,
    bootId: readBootId(),
    nodeName: hostname(),
    policy: config.placement.default,
    cgroupDriver: pickCgroupDriver(config.cgroup.driver, { systemdRunning: isSystemdRunning() }),
    hostFacts: { ...hostFacts, capabilities: CAPABILITIES.filter((_name, number) => ((capabilityMask >> BigInt(number)) & 1n) === 1n) },
    userNamespaces,
  };
}

async function rebuildFromPods(config: Config, store: Runtime["store"], log: Log): Promise<void> {
  const { pods, bad } = await rebuild(store, join(config.root, "pods"));
  for (const { path, reason } of bad) log.error("a pod's record cannot be read: its pod is left alone", { path, reason });
  if (pods > 0) log.warn("rebuilt the database from the pods' own records", { pods });
}

/** Rows are what this program wrote: their shape is the record's, told by its `version`. */
async function readRecords(runtime: Runtime) {
  const [pods, containers] = await Promise.all([runtime.store.list("pod"), runtime.store.list("container")]);
  return {
    pods: pods.map(({ value }) => value as PodRecord),
    containers: containers.map(({ value }) => value as ContainerRecord),
  };
}

async function openVmm(
  config: Config,
  stack: AsyncDisposableStack,
  { virtualization, log }: { readonly virtualization: NodeVirtualization; readonly log: Log },
): Promise<QemuVmm> {
  const { defaultMemoryBytes: memoryBytes, defaultVcpus: vcpus, template, accelerator } = config.vm;
  const options = { defaults: { memoryBytes, vcpus }, hostCpus: availableParallelism() };
  // Nothing is translated elsewhere, and "auto" never emulates.
  if (template === "off" || accelerator !== "tcg") return new QemuVmm(options, virtualization);
  return new QemuVmm(options, virtualization, stack.use(await MachineTemplates.open(join(config.root, "vm-templates"), { log })));
}
