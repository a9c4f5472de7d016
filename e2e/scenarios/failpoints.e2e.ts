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
import { repositoryDir, runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const node = useNode();
const oursOnly = runtimeUnderTest() === "containerd" ? "failpoints are ours" : false;
const command = ["/bin/sh", "-c", "trap 'exit 21' TERM; while :; do sleep 0.05; done"];

/** Every failpoint that the daemon's source names. */
function failpoints(): string[] {
  const sources = globSync("src/**/*.ts", { cwd: repositoryDir, exclude: (name) => name.endsWith(".test.ts") });
  const texts = sources.map((path) => readFileSync(join(repositoryDir, path), "utf8"));
  const names = texts.flatMap((text) => [...text.matchAll(/failpoint\("([^"]+)"\)/g)].map((match) => match[1] ?? ""));
  return [...new Set(names)].toSorted();
}

/** The failpoints that the daemon died of so far, as it said with its last words. */
function lastWords(): string[] {
  const log = readFileSync(join(node().prefix.dir, "daemon.log"), "utf8");
  return [...log.matchAll(/^failpoint (\S+)$/gm)].map((match) => match[1] ?? "");
}

/** A daemon in which the failpoints are armed that it has not yet died of. One that dies of some while it recovers is started again without them. */
class ArmedDaemon {
  readonly #all = new Set(failpoints());
  #armed = new Set<string>();
  #deathsBefore = 0;

  /** Arms everything. */
  async rearm(): Promise<void> {
    this.#armed = new Set(this.#all);
    this.#deathsBefore = lastWords().length;
    await this.#start();
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
      const armed = [...this.#armed.difference(new Set(this.deaths))];
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

test("a daemon that dies at every failpoint of every call, its retries included", { skip: oursOnly }, async (t) => {
  const { runtime, image } = node().clients;
  const daemon = new ArmedDaemon();
  const died = new Set<string>();

  /** Repeats the identical call until the daemon lives through it. */
  const step = async <T>(name: string, call: () => Promise<T>): Promise<T> => {
    await daemon.rearm();
    for (;;) {
      try {
        const result = await call();
        t.diagnostic(`${name}: ${daemon.deaths.length} deaths: ${daemon.deaths.join(", ")}`);
        for (const death of daemon.deaths) died.add(death);
        return result;
      } catch (error) {
        if (!isDeath(error)) throw error;
        await daemon.reviveAfter(error);
      }
    }
  };

  const reference = node().registry.reference("layers");
  await step("pull", () => unary(image, image.pullImage, { image: imageSpec(reference), auth: undefined, sandboxConfig: undefined }));
  const config = sandboxConfig(node().prefix);
  const { podSandboxId } = await step("run", () => unary(runtime, runtime.runPodSandbox, { config, runtimeHandler: "" }));
  const pod = new Pod({ node: node(), id: podSandboxId, config });
  const containerConfig = pod.containerConfig({ image: { image: reference }, command });
  const create = () => unary(runtime, runtime.createContainer, { podSandboxId, config: containerConfig, sandboxConfig: config });
  const { containerId } = await step("create", create);
  const describe = async () => (await unary(runtime, runtime.containerStatus, { containerId, verbose: false })).status;
  // A start that took effect before the daemon died is told by the state, as the kubelet would see it.
  await step("start", async () => {
    if ((await describe())?.state === ContainerState.CONTAINER_CREATED) await unary(runtime, runtime.startContainer, { containerId });
  });
  await step("exec", () => unary(runtime, runtime.execSync, { containerId, cmd: ["/bin/true"], timeout: 10n }));
  await step("stop", () => unary(runtime, runtime.stopContainer, { containerId, timeout: 10n }));
  await step("status", async () => assert.equal((await describe())?.exitCode, 21));
  await step("remove", () => unary(runtime, runtime.removeContainer, { containerId }));
  await step("stop pod", () => unary(runtime, runtime.stopPodSandbox, { podSandboxId }));
  await step("remove pod", () => unary(runtime, runtime.removePodSandbox, { podSandboxId }));
  await step("remove image", () => unary(image, image.removeImage, { image: imageSpec(reference) }));

  await node().kill9();
  await node().startDaemon();
  assert.deepEqual((await unary(runtime, runtime.listPodSandbox, { filter: undefined })).items, []);
  assert.deepEqual((await unary(runtime, runtime.listContainers, { filter: undefined })).containers, []);
  assert.deepEqual(await leases(node().prefix), []);
  const { image: gone } = await unary(image, image.imageStatus, { image: imageSpec(reference), verbose: false });
  assert.equal(gone, undefined);
  assert.deepEqual(
    failpoints().filter((name) => !died.has(name)),
    [],
    "failpoints that no step reaches",
  );
});
