import type { Container } from "../harness/container.ts";
import { unary } from "../harness/cri-client.ts";
import { streamTrue } from "../harness/exec-client.ts";
import type { Node } from "../harness/node.ts";
import { Pod, sandboxConfig } from "../harness/pod.ts";
import { CpuAccount } from "./cpu-account.ts";
import { type Direction, ForwardTarget } from "./forward.ts";
import type { Sample } from "./statistics.ts";

/** A runtime with its CPU account. Both runtimes are driven by the same client over gRPC. */
export class Contestant {
  readonly node: Node;
  readonly #account: CpuAccount;

  private constructor(node: Node, account: CpuAccount) {
    this.node = node;
    this.#account = account;
  }

  static async create(node: Node): Promise<Contestant> {
    const { pid } = node.daemon.process;
    if (pid === undefined) throw new Error(`${node.kind} is not running`);
    return new Contestant(node, await CpuAccount.open(node.prefix.cgroupParent, pid));
  }

  /** RunPodSandbox, CreateContainer and StartContainer of one pod with its network; taking it away again is not measured. */
  async startPod(): Promise<Sample> {
    const config = this.#sandbox();
    const pending = Promise.withResolvers<Pod>();
    const sample = await this.#measure(async () => pending.resolve(await this.#run(config)));
    await using _ = await pending.promise;
    return sample;
  }

  /** A pod with one container that stays. */
  async openExec(): Promise<ExecTarget> {
    const pod = await this.node.runPod(this.#sandbox());
    const container = await pod.start();
    return {
      execSync: () =>
        this.#measure(async () => {
          const { exitCode } = await container.exec(["/bin/true"]);
          if (exitCode !== 0) throw new Error(`/bin/true in ${this.node.kind}: exit code ${exitCode}`);
        }),
      exec: () => this.#measure(() => streamTrue(this.node, container)),
      container,
      [Symbol.asyncDispose]: () => pod[Symbol.asyncDispose](),
    };
  }

  /** A pod that connections are forwarded to, `sizeMib` bytes each. */
  async openForward(sizeMib: number): Promise<ForwardPod> {
    const target = await ForwardTarget.open(this.node, sizeMib, this.#sandbox());
    return {
      target,
      forward: (direction) => this.#measure(() => target.forward(direction)),
      [Symbol.asyncDispose]: () => target[Symbol.asyncDispose](),
    };
  }

  async #run(config: ReturnType<typeof sandboxConfig>): Promise<Pod> {
    const { runtime } = this.node.clients;
    const { podSandboxId } = await unary(runtime, runtime.runPodSandbox, { config, runtimeHandler: "" });
    const pod = new Pod({ node: this.node, id: podSandboxId, config });
    await pod.start();
    return pod;
  }

  #sandbox() {
    const linux = { cgroupParent: this.#account.podsParent, securityContext: { namespaceOptions: { pid: 1 } as const } };
    return sandboxConfig(this.node.prefix, { linux });
  }

  async #measure(operation: () => Promise<void>): Promise<Sample> {
    const cpuBeforeMs = await this.#account.usedMs();
    const begunMs = performance.now();
    await operation();
    const wallMs = performance.now() - begunMs;
    return { wallMs, cpuMs: (await this.#account.usedMs()) - cpuBeforeMs };
  }
}

export interface ExecTarget extends AsyncDisposable {
  /** ExecSync of `/bin/true`. */
  execSync(): Promise<Sample>;
  /** Exec of `/bin/true` and a client of it. */
  exec(): Promise<Sample>;
  readonly container: Container;
}

export interface ForwardPod extends AsyncDisposable {
  readonly target: ForwardTarget;
  forward(direction: Direction): Promise<Sample>;
}
