import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, open, readFile, rename, rm, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { cgroupDirs } from "../harness/cgroup.ts";
import { exited, mustRun, terminate } from "../harness/command.ts";
import type { Node } from "../harness/node.ts";
import { freePort } from "../harness/ports.ts";
import { childEnvironment, peersDir } from "../harness/settings.ts";
import { mountsBelow } from "../harness/sweep.ts";
import { waitFor } from "../harness/wait.ts";
import type { PodObject } from "./api.ts";
import { KubeletApi } from "./api.ts";
import type { KubeletPlaces } from "./configuration.ts";
import { kubeletConfiguration, kubeletPlaces } from "./configuration.ts";
import { launcherArguments, nodeNameOf } from "./launcher.ts";

/** A manifest of a static pod: a v1 Pod. */
export interface StaticPod {
  readonly metadata: { readonly name: string; readonly namespace: string; readonly labels: Readonly<Record<string, string>> };
  readonly spec: object;
}

/** A real kubelet on the socket of a node under test, without an API server. Its output goes to `kubelet/kubelet.log` in the prefix. */
export class Kubelet implements AsyncDisposable {
  readonly api: KubeletApi;
  readonly places: KubeletPlaces;
  readonly #node: Node;
  #process: ChildProcess | undefined;

  private constructor(node: Node, places: KubeletPlaces) {
    this.#node = node;
    this.places = places;
    this.api = new KubeletApi(places.port);
  }

  /** Makes the directories and starts the kubelet; `pods` are there when it looks first. Failure leaves nothing behind. */
  static async start(node: Node, pods: readonly StaticPod[] = []): Promise<Kubelet> {
    const kubelet = new Kubelet(node, kubeletPlaces(node.prefix, await freePort()));
    try {
      await kubelet.#prepare(pods);
      await kubelet.startProcess();
    } catch (error) {
      await kubelet[Symbol.asyncDispose]();
      throw error;
    }
    return kubelet;
  }

  async #prepare(pods: readonly StaticPod[]): Promise<void> {
    const { rootDir, staticPodDir, podLogsDir, certDir, pluginDir, configPath, resolvPath } = this.places;
    for (const dir of [rootDir, staticPodDir, podLogsDir, certDir, pluginDir, this.#scratchDir]) await mkdir(dir, { recursive: true });
    await mustRun("mount", ["--bind", rootDir, rootDir]);
    // Of its own peers, wherever the prefix lies.
    await mustRun("mount", ["--make-private", rootDir]);
    await mustRun("mount", ["--make-shared", rootDir]);
    await writeFile(resolvPath, "nameserver 192.0.2.53\nsearch e2e.example\n");
    await writeFile(configPath, JSON.stringify(kubeletConfiguration(this.#node.prefix, this.places), undefined, 2));
    for (const pod of pods) await this.put(pod);
  }

  /** Starts the process, and returns when it answers; one that ends before is an error with the tail of its log. */
  async startProcess(): Promise<void> {
    await using log = await open(this.places.logPath, "a");
    const program = join(peersDir(), "bin", "kubelet");
    if (!existsSync(program)) throw new Error(`there is no ${program}: tools/peers.sh kubelet`);
    const child = spawn("unshare", launcherArguments(program, this.#node.prefix, this.places, this.#scratchDir), {
      stdio: ["ignore", log.fd, log.fd],
      env: childEnvironment(),
    });
    child.on("error", () => {});
    this.#process = child;
    const answers = async () => child.exitCode !== null || (await this.api.get("/healthz")) === "ok";
    await waitFor("the kubelet to answer", answers, { timeoutMs: 60_000, intervalMs: 200 });
    if (child.exitCode !== null) throw new Error(`the kubelet ended; the end of its log:\n${await this.logTail()}`);
  }

  /** Writes a manifest, whole or not at all. */
  async put(pod: StaticPod): Promise<void> {
    const path = join(this.places.staticPodDir, `${pod.metadata.name}.json`);
    const fresh = join(this.#scratchDir, `${pod.metadata.name}.json`);
    await writeFile(fresh, JSON.stringify({ apiVersion: "v1", kind: "Pod", ...pod }));
    await rename(fresh, path);
  }

  /** Takes a manifest away, which is how a static pod is deleted. */
  async remove(name: string): Promise<void> {
    await rm(join(this.places.staticPodDir, `${name}.json`));
  }

  /** The pod of the manifest `name`, if the kubelet has it. */
  async find(name: string): Promise<PodObject | undefined> {
    return (await this.api.pods()).find(({ metadata }) => metadata.name === `${name}-${nodeNameOf(this.#node.prefix)}`);
  }

  async pod(name: string): Promise<PodObject> {
    const pod = await this.find(name);
    if (pod === undefined) throw new Error(`the kubelet has no pod '${name}'`);
    return pod;
  }

  /** Waits until a pod is as `holds` wants it; the error shows its last state. */
  async waitForPod(name: string, what: string, holds: (pod: PodObject) => boolean, timeoutMs = 60_000): Promise<PodObject> {
    let last: PodObject | undefined;
    try {
      return await waitFor(
        `pod ${name}: ${what}`,
        async () => {
          last = await this.find(name);
          return last !== undefined && holds(last) ? last : undefined;
        },
        { timeoutMs, intervalMs: 250 },
      );
    } catch (error) {
      throw new Error(`pod ${name} is not '${what}': ${JSON.stringify(last?.status)}`, { cause: error });
    }
  }

  async kill9(): Promise<void> {
    if (this.#process === undefined) return;
    this.#process.kill("SIGKILL");
    await exited(this.#process);
  }

  async logTail(lines = 30): Promise<string> {
    return (await readFile(this.places.logPath, "utf8")).split("\n").slice(-lines).join("\n");
  }

  /** Ends the kubelet, drains the node, and takes away what a kubelet leaves where it ran: cgroups and mounts. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process !== undefined) await terminate(this.#process);
    await this.#node.drain();
    for (const dir of await cgroupDirs(`${this.#node.prefix.cgroupParent}/kubepods`)) await rmdir(dir);
    const mounts = await mountsBelow(join(this.#node.prefix.dir, "kubelet"));
    for (const mount of mounts.reverse()) await mustRun("umount", [mount]);
  }

  get #scratchDir(): string {
    return join(this.#node.prefix.dir, "kubelet", "scratch");
  }
}
