import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { ServiceError } from "@grpc/grpc-js";
import { status } from "@grpc/grpc-js";

import { ContainerState } from "../../api/gen/cri/v1/api.ts";
import { unary } from "../harness/cri-client.ts";
import { leases } from "../harness/leaks.ts";
import { imageSpec } from "../harness/node.ts";
import { Pod, sandboxConfig } from "../harness/pod.ts";
import { podsUnderTest, repositoryDir, runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const node = useNode();
const oursOnly = runtimeUnderTest() === "containerd" ? "failpoints are ours" : false;
const command = ["/bin/sh", "-c", "trap 'exit 21' TERM; while :; do sleep 0.05; done"];

/** Every failpoint that the daemon's source names, and that pods of this mode pass. */
function failpoints(): string[] {
  const sources = globSync("src/**/*.ts", { cwd: repositoryDir, exclude: (name) => name.endsWith(".test.ts") });
  const texts = sources.map((path) => readFileSync(join(repositoryDir, path), "utf8"));
  const names = texts.flatMap((text) => [...text.matchAll(/failpoint\("([^"]+)"\)/g)].map((match) => match[1] ?? ""));
  const passed = names.filter((name) => podsUnderTest() === "microvm" || !name.startsWith("runtime.vm."));
  return [...new Set(passed)].toSorted();
}

/** The failpoints that the daemon died of so far, as it said with its last words. */
function lastWords(): string[] {
  const log = readFileSync(join(node().prefix.dir, "daemon.log"), "utf8");
  return [...log.matchAll(/^failpoint (\S+)$/gm)].map((match) => match[1] ?? "");
}

/** A daemon in which the failpoints are armed that it has not yet died of. One that dies of some while it recovers is started again without them. */
class ArmedDaemon {
  readonly #names: ReadonlySet<string>;
  #deathsBefore = 0;
  #isFresh = false;

  constructor(names: readonly string[]) {
    this.#names = new Set(names);
  }

  /** Arms everything, unless it still is. */
  async rearm(): Promise<void> {
    if (this.#isFresh && this.deaths.length === 0) return;
    this.#deathsBefore = lastWords().length;
    await this.#start();
    this.#isFresh = true;
  }

  /** Waits for the end that an armed failpoint has brought, and starts again without it. */
  async reviveAfter(error: unknown): Promise<void> {
    await waitFor(`the daemon to be dead after ${String(error)}`, () => !node().daemon.isRunning, { timeoutMs: 5000 });
    await this.#start();
  }

  /** What it died of since it was armed. */
  get deaths(): string[] {
    return lastWords().slice(this.#deathsBefore);
  }

  async #start(): Promise<void> {
    await node().kill9();
    for (;;) {
      const before = this.deaths.length;
      const armed = [...this.#names.difference(new Set(this.deaths))];
      try {
        await node().startDaemon({ failpoints: armed.map((name) => `${name}=kill`).join(",") });
        return;
      } catch (error) {
        if (this.deaths.length === before) throw error;
      }
    }
  }
}

/** The connection broke, or nobody listened. */
function isDeath(error: unknown): boolean {
  const { code } = error as ServiceError;
  return code === status.UNAVAILABLE || code === status.CANCELLED || code === status.INTERNAL || code === status.UNKNOWN;
}

/** A daemon under which each step is repeated, the identical call each time, until the daemon lives through it. */
class Steps {
  readonly died = new Set<string>();
  readonly #daemon: ArmedDaemon;
  readonly #tell: (text: string) => void;

  constructor(names: readonly string[], tell: (text: string) => void) {
    this.#daemon = new ArmedDaemon(names);
    this.#tell = tell;
  }

  async run<T>(name: string, call: () => Promise<T>): Promise<T> {
    await this.#daemon.rearm();
    for (;;) {
      try {
        const result = await call();
        const { deaths } = this.#daemon;
        if (deaths.length > 0) this.#tell(`${name}: ${deaths.length} deaths: ${deaths.join(", ")}`);
        for (const death of deaths) this.died.add(death);
        return result;
      } catch (error) {
        if (!isDeath(error)) throw error;
        await this.#daemon.reviveAfter(error);
      }
    }
  }
}

/** From the pull of an image to its removal, with the life of a pod between. */
async function life(steps: Steps): Promise<void> {
  const { runtime, image } = node().clients;
  const reference = node().registry.reference("layers");
  await steps.run("pull", () => unary(image, image.pullImage, { image: imageSpec(reference), auth: undefined, sandboxConfig: undefined }));
  const config = sandboxConfig(node().prefix);
  const { podSandboxId } = await steps.run("run", () => unary(runtime, runtime.runPodSandbox, { config, runtimeHandler: "" }));
  const pod = new Pod({ node: node(), id: podSandboxId, config });
  const containerConfig = pod.containerConfig({ image: { image: reference }, command });
  const create = () => unary(runtime, runtime.createContainer, { podSandboxId, config: containerConfig, sandboxConfig: config });
  const { containerId } = await steps.run("create", create);
  const describe = async () => (await unary(runtime, runtime.containerStatus, { containerId, verbose: false })).status;
  // A start that took effect before the daemon died is told by the state, as the kubelet would see it.
  await steps.run("start", async () => {
    if ((await describe())?.state === ContainerState.CONTAINER_CREATED) await unary(runtime, runtime.startContainer, { containerId });
  });
  await steps.run("exec", () => unary(runtime, runtime.execSync, { containerId, cmd: ["/bin/true"], timeout: 10n }));
  await steps.run("stop", () => unary(runtime, runtime.stopContainer, { containerId, timeout: 10n }));
  await steps.run("status", async () => assert.equal((await describe())?.exitCode, 21));
  await steps.run("remove", () => unary(runtime, runtime.removeContainer, { containerId }));
  await steps.run("stop pod", () => unary(runtime, runtime.stopPodSandbox, { podSandboxId }));
  await steps.run("remove pod", () => unary(runtime, runtime.removePodSandbox, { podSandboxId }));
  await steps.run("remove image", () => unary(image, image.removeImage, { image: imageSpec(reference) }));
}

async function assertNothingLeft(): Promise<void> {
  const { runtime, image } = node().clients;
  assert.deepEqual((await unary(runtime, runtime.listPodSandbox, { filter: undefined })).items, []);
  assert.deepEqual((await unary(runtime, runtime.listContainers, { filter: undefined })).containers, []);
  assert.deepEqual(await leases(node().prefix), []);
  const { image: gone } = await unary(image, image.imageStatus, { image: imageSpec(node().registry.reference("layers")), verbose: false });
  assert.equal(gone, undefined);
}

test("a daemon that dies at every failpoint of every call, its retries included", { skip: oursOnly }, async (t) => {
  const tell = (text: string) => t.diagnostic(text);
  const all = new Steps(failpoints(), tell);
  let missing: string[] = failpoints();
  try {
    await life(all);
    // Some are behind others that leave the retry nothing to do.
    missing = failpoints().filter((name) => !all.died.has(name));
    const rest = new Steps(missing, tell);
    await life(rest);
    missing = missing.filter((name) => !rest.died.has(name));
  } finally {
    await node().kill9();
    await node().startDaemon();
  }
  await assertNothingLeft();
  assert.deepEqual(missing, [], "failpoints that no step reaches");
});
