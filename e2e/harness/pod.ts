import { randomUUID } from "node:crypto";
import { join } from "node:path";
import type { DeepPartial, PodSandboxStatus } from "../../api/gen/cri/v1/api.ts";
import { ContainerConfig, NamespaceMode, PodSandboxConfig } from "../../api/gen/cri/v1/api.ts";
import { Container } from "./container.ts";
import type { CriClients } from "./cri-client.ts";
import { unary } from "./cri-client.ts";
import type { Prefix } from "./prefix.ts";
import type { Registry } from "./registry.ts";

/** Fields of the sandbox's configuration that differ from the usual ones. */
export type PodOptions = DeepPartial<PodSandboxConfig> & { readonly runtimeHandler?: string };

/** What a pod needs of its node. */
export interface PodHome {
  readonly clients: CriClients;
  readonly registry: Registry;
  /** Keeps an error of a clean-up for the node's end, so that it does not hide the error of the test. */
  noteFailure(error: unknown): void;
}

/** A usual pod: its own network and ipc, a pid namespace per container as the kubelet asks, logs below the prefix. */
export function sandboxConfig(prefix: Prefix, options: PodOptions = {}): PodSandboxConfig {
  const { runtimeHandler: _, ...config } = options;
  const uid = randomUUID();
  return PodSandboxConfig.fromPartial({
    metadata: { name: `pod-${uid.slice(0, 8)}`, uid, namespace: "e2e", attempt: 0 },
    hostname: "pod-host",
    logDirectory: join(prefix.logsDir, uid),
    linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } } },
    ...config,
  });
}

let containerCount = 0;

/** A pod sandbox that is stopped and removed when disposed. */
export class Pod implements AsyncDisposable {
  readonly id: string;
  readonly config: PodSandboxConfig;
  readonly #node: PodHome;

  constructor(parts: { readonly node: PodHome; readonly id: string; readonly config: PodSandboxConfig }) {
    this.id = parts.id;
    this.config = parts.config;
    this.#node = parts.node;
  }

  /** The configuration of a container of this pod: BusyBox sleeping for ever, unless `options` says otherwise. */
  containerConfig(options: DeepPartial<ContainerConfig> = {}): ContainerConfig {
    const name = options.metadata?.name ?? `container-${++containerCount}`;
    const image = { image: this.#node.registry.reference("busybox") };
    // The kubelet repeats the pod's namespaces for each container.
    const namespaceOptions = this.config.linux?.securityContext?.namespaceOptions ?? {};
    const linux = { ...options.linux, securityContext: { namespaceOptions, ...options.linux?.securityContext } };
    return ContainerConfig.fromPartial({
      metadata: { name },
      image,
      command: ["/bin/sleep", "infinity"],
      logPath: `${name}.log`,
      ...options,
      linux,
    });
  }

  /** Creates a container without starting it. */
  async create(options: DeepPartial<ContainerConfig> = {}): Promise<Container> {
    const { runtime } = this.#node.clients;
    const config = this.containerConfig(options);
    const { containerId } = await unary(runtime, runtime.createContainer, { podSandboxId: this.id, config, sandboxConfig: this.config });
    return new Container({ node: this.#node, id: containerId, logPath: join(this.config.logDirectory, config.logPath) });
  }

  /** Creates and starts a container. */
  async start(options: DeepPartial<ContainerConfig> = {}): Promise<Container> {
    const container = await this.create(options);
    await container.start();
    return container;
  }

  /** Runs a container to its end; its stdout and stderr. */
  async runToEnd(
    options: DeepPartial<ContainerConfig>,
  ): Promise<{ readonly exitCode: number; readonly stdout: string; readonly stderr: string }> {
    await using container = await this.start(options);
    const { exitCode } = await container.waitExited();
    return { exitCode, stdout: await container.logText("stdout"), stderr: await container.logText("stderr") };
  }

  async status(): Promise<PodSandboxStatus> {
    const { runtime } = this.#node.clients;
    const { status } = await unary(runtime, runtime.podSandboxStatus, { podSandboxId: this.id, verbose: false });
    if (status === undefined) throw new Error(`PodSandboxStatus of ${this.id} holds no status`);
    return status;
  }

  async stop(): Promise<void> {
    const { runtime } = this.#node.clients;
    await unary(runtime, runtime.stopPodSandbox, { podSandboxId: this.id });
  }

  async remove(): Promise<void> {
    const { runtime } = this.#node.clients;
    await unary(runtime, runtime.removePodSandbox, { podSandboxId: this.id });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.stop();
      await this.remove();
    } catch (error) {
      this.#node.noteFailure(error);
    }
  }
}
