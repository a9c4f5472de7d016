import { rm } from "node:fs/promises";

import type { ServiceError } from "@grpc/grpc-js";
import { status } from "@grpc/grpc-js";

import { ImageSpec } from "../../api/gen/cri/v1/api.ts";
import type { CriClients } from "./cri-client.ts";
import { connectCri, unary } from "./cri-client.ts";
import { Crictl } from "./crictl.ts";
import type { DaemonStart } from "./daemon.ts";
import { Daemon } from "./daemon.ts";
import type { ConfigTables, DaemonCommand } from "./daemon-command.ts";
import { daemonCommand } from "./daemon-command.ts";
import { GoClient } from "./go-client.ts";
import type { Snapshot } from "./leak-check.ts";
import { hostBefore, leaksOf } from "./leaks.ts";
import type { PodOptions } from "./pod.ts";
import { Pod, sandboxConfig } from "./pod.ts";
import type { Prefix } from "./prefix.ts";
import { createPrefix, writeHosts } from "./prefix.ts";
import { Registry } from "./registry.ts";
import type { PodMode, RuntimeKind } from "./settings.ts";
import { goClientUnderTest, keepsPrefixes, runtimeUnderTest } from "./settings.ts";
import { sweepPrefix } from "./sweep.ts";

export interface NodeOptions {
  readonly kind?: RuntimeKind;
  /** A registry to share; without it the node starts one of its own. */
  readonly registry?: Registry;
  /** Where pods run; as the environment says when left out. */
  readonly pods?: PodMode;
  /** Keys of our configuration, over those that a test node has. */
  readonly config?: ConfigTables;
  /** Whether the calls go through the kubelet's client library, which checks the answers; as the environment says when left out. */
  readonly goClient?: boolean;
}

/** A runtime under test on a prefix of its own, with a registry to pull from. */
export class Node implements AsyncDisposable {
  readonly kind: RuntimeKind;
  readonly prefix: Prefix;
  readonly registry: Registry;
  readonly crictl: Crictl;
  readonly clients: CriClients;
  readonly #command: DaemonCommand;
  readonly #before: Snapshot;
  readonly #resources: AsyncDisposableStack;
  readonly #failures: unknown[] = [];
  #daemon: Daemon | undefined;

  private constructor(parts: NodeParts) {
    this.kind = parts.kind;
    this.prefix = parts.prefix;
    this.registry = parts.registry;
    this.crictl = parts.crictl;
    this.clients = parts.clients;
    this.#command = parts.command;
    this.#before = parts.before;
    this.#resources = parts.resources;
  }

  /** Makes the prefix and starts the daemon. Failure leaves nothing behind. */
  static async start(options: NodeOptions = {}): Promise<Node> {
    const kind = options.kind ?? runtimeUnderTest();
    await using stack = new AsyncDisposableStack();
    const prefix = await createPrefix();
    stack.defer(async () => {
      if (!keepsPrefixes()) await rm(prefix.dir, { recursive: true, force: true });
      prefix.network[Symbol.dispose]();
    });
    stack.defer(() => sweepPrefix(prefix));
    const registry = options.registry ?? stack.use(await Registry.start());
    await writeHosts(prefix, registry.host, `server = "http://${registry.host}"\n`);
    const goClient = (options.goClient ?? goClientUnderTest()) ? stack.use(await GoClient.start(prefix.socketPath)) : undefined;
    const clients = stack.use(connectCri(goClient?.socketPath ?? prefix.socketPath));
    const crictl = await Crictl.create(prefix);
    const command = await daemonCommand(kind, prefix, {
      pauseReference: registry.reference("pause"),
      ...(options.pods === undefined ? {} : { pods: options.pods }),
      ...(options.config === undefined ? {} : { config: options.config }),
    });
    const before = await hostBefore();
    const resources = stack.move();
    const node = new Node({ kind, prefix, registry, crictl, clients, command, before, resources });
    try {
      await node.startDaemon();
      if (kind === "containerd") await node.pull("pause");
    } catch (error) {
      await node[Symbol.asyncDispose]();
      throw error;
    }
    return node;
  }

  get daemon(): Daemon {
    if (this.#daemon === undefined) throw new Error("the daemon was never started");
    return this.#daemon;
  }

  async startDaemon(options: DaemonStart = {}): Promise<void> {
    this.#daemon = await Daemon.start(this.#command, this.prefix, this.clients, options);
  }

  /** A second daemon on the same directories, which is expected to be refused. */
  get command(): DaemonCommand {
    return this.#command;
  }

  async kill9(): Promise<void> {
    await this.daemon.kill9();
  }

  /** SIGTERM, then a fresh start. */
  async restart(): Promise<void> {
    await this.daemon.stop();
    await this.startDaemon();
  }

  /** Pulls a standard image and returns its id. */
  async pull(name: string): Promise<string> {
    const { image } = this.clients;
    const request = { image: imageSpec(this.registry.reference(name)), auth: undefined, sandboxConfig: undefined };
    return (await unary(image, image.pullImage, request)).imageRef;
  }

  /** Runs a pod that is stopped and removed when disposed. */
  async runPod(options: PodOptions = {}): Promise<Pod> {
    const config = sandboxConfig(this.prefix, options);
    const { runtime } = this.clients;
    const { podSandboxId } = await unary(runtime, runtime.runPodSandbox, { config, runtimeHandler: options.runtimeHandler ?? "" });
    return new Pod({ node: this, id: podSandboxId, config });
  }

  /** Removes every pod and image through the CRI, as an operator would before taking a node away. */
  async drain(): Promise<void> {
    const { runtime, image } = this.clients;
    for (const { id } of (await unary(runtime, runtime.listPodSandbox, { filter: undefined })).items) {
      await unary(runtime, runtime.stopPodSandbox, { podSandboxId: id });
      await unary(runtime, runtime.removePodSandbox, { podSandboxId: id });
    }
    for (const { id } of (await unary(image, image.listImages, { filter: undefined })).images) {
      await unary(image, image.removeImage, { image: imageSpec(id) });
    }
  }

  /**
   * Drains and stops the daemon, looks for what it left on the host, then deletes the prefix. A leak is an error, thrown when all is gone. Only
   * processes of the prefix are ended.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await using _ = this.#resources;
    try {
      if (this.#daemon !== undefined) await this.#drainEvenAfterDeath();
    } finally {
      await this.#daemon?.stop();
    }
    if (this.#failures.length > 0) throw new AggregateError(this.#failures, `clean-up failed: ${this.#failures.map(String).join("; ")}`);
    const leaks = await leaksOf(this.prefix, this.#before);
    if (leaks.length === 0) return;
    throw new Error(`the runtime left behind:\n  ${leaks.join("\n  ")}`);
  }

  /** An interrupted run has ended the daemon, or is just ending it. */
  async #drainEvenAfterDeath(): Promise<void> {
    try {
      await this.drain();
    } catch (error) {
      if ((error as ServiceError).code !== status.UNAVAILABLE) throw error;
      await this.restart();
      await this.drain();
    }
  }

  /** What is left of pods that are gone, while the daemon runs on. */
  async leaks(): Promise<readonly string[]> {
    return await leaksOf(this.prefix, this.#before, { daemonPid: this.daemon.process.pid });
  }

  noteFailure(error: unknown): void {
    this.#failures.push(error);
  }
}

interface NodeParts {
  readonly kind: RuntimeKind;
  readonly prefix: Prefix;
  readonly registry: Registry;
  readonly crictl: Crictl;
  readonly clients: CriClients;
  readonly command: DaemonCommand;
  readonly before: Snapshot;
  readonly resources: AsyncDisposableStack;
}

export function imageSpec(image: string): ImageSpec {
  return ImageSpec.fromPartial({ image });
}
