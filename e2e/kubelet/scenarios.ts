import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { Node } from "../harness/node.ts";
import { slowness } from "../harness/settings.ts";
import { waitFor } from "../harness/wait.ts";
import type { ContainerStatusObject, PodObject } from "./api.ts";
import { Kubelet } from "./kubelet.ts";
import { isDone, isReady, lives, placementsOf, sandboxesOf } from "./look.ts";
import type { HostSide } from "./static-pods.ts";
import { createHostSide, staticPods } from "./static-pods.ts";

/** How long the pods are watched while the daemon is killed again and again, from `AURAE_CRI_E2E_KUBELET_MINUTES`. */
const enduranceMinutes = Number(process.env["AURAE_CRI_E2E_KUBELET_MINUTES"] ?? 5);
const coldStartMs = 60_000;
const killEveryMs = 120_000;

/** Pods that run for ever when all is well. */
const lasting = ["web", "crashes-once", "alive", "agent", "needs-the-host"];

/**
 * What must hold of a real kubelet on our socket, with pods flat (`placement.default = flat`) or as microVMs where they can be (`prefer-vm`, under
 * emulation). The tests are one story: each goes on where the one before ended.
 */
export function kubeletScenarios(mode: "flat" | "microvm"): void {
  const inGuest = mode === "microvm";
  let node: Node;
  let host: HostSide;
  let kubelet: Kubelet;
  const resources = new AsyncDisposableStack();

  before(async () => {
    node = resources.use(await Node.start({ pods: inGuest ? "both" : "flat" }));
    host = resources.use(await createHostSide(node));
  });
  after(() => resources.disposeAsync());

  const only = ({ status }: PodObject): ContainerStatusObject => {
    const [container] = status.containerStatuses ?? [];
    assert.ok(container !== undefined, "a container's status");
    return container;
  };

  test("from a cold start: Running and Ready within a minute", async (context) => {
    const startMs = performance.now();
    kubelet = resources.use(await Kubelet.start(node, staticPods(node, host)));
    const took = await Promise.all(
      [...lasting, "finishes"].map(async (name) => {
        await kubelet.waitForPod(name, "Ready or done", (pod) => isReady(pod) || isDone(pod), coldStartMs);
        return `${name} ${((performance.now() - startMs) / 1000).toFixed(1)} s`;
      }),
    );
    context.diagnostic(took.join(", "));
    assert.ok(performance.now() - startMs < coldStartMs * slowness(), took.join(", "));
  });

  test("pods are where they were meant to be", async () => {
    const expected = inGuest
      ? {
          web: "microvm: Default",
          finishes: "microvm: Default",
          agent: "flat: HostNamespace",
          // After an attempt in a microVM, of which the kubelet may have removed the sandbox by now.
          "needs-the-host": "flat: LateRefusal",
        }
      : { web: "flat: PolicyFlat", finishes: "flat: PolicyFlat", agent: "flat: PolicyFlat", "needs-the-host": "flat: PolicyFlat" };
    for (const [name, placement] of Object.entries(expected))
      assert.equal((await placementsOf(node, await kubelet.pod(name)))[0], placement, name);
  });

  test("init containers in order, and one that stays beside", async () => {
    const web = await kubelet.pod("web");
    assert.equal(await kubelet.api.shell(web, "server", "cat /www/order"), "first\nbeside\nlast");
    const states = (web.status.initContainerStatuses ?? []).map(({ name, state }) => `${name} ${Object.keys(state).join()}`);
    assert.deepEqual(states.sort(), ["beside running", "first terminated", "last terminated"]);
  });

  test("a pod's page, from the host; its address is in its environment", async () => {
    const web = await kubelet.pod("web");
    const page = await fetch(`http://${web.status.podIP}/`, { headers: { connection: "close" } });
    assert.equal(await page.text(), "hello\n");
    assert.equal(await kubelet.api.shell(web, "server", "echo $POD_IP"), web.status.podIP);
    const agent = await fetch(`http://127.0.0.1:${host.port}/`, { headers: { connection: "close" } });
    assert.equal(await agent.text(), "the agent\n");
  });

  test("/etc/hosts and resolv.conf are the kubelet's", async () => {
    const web = await kubelet.pod("web");
    const hosts = await kubelet.api.shell(web, "server", "cat /etc/hosts");
    assert.match(hosts, /^192\.0\.2\.7\s+alias\.example$/m);
    assert.match(hosts, new RegExp(`^${web.status.podIP}\\s+${web.metadata.name}$`, "m"));
    assert.match(await kubelet.api.shell(web, "reader", "cat /etc/resolv.conf"), /nameserver 192\.0\.2\.53/);
  });

  test("volumes: a ConfigMap's change is seen, memory is a tmpfs, the downward API tells", async () => {
    const web = await kubelet.pod("web");
    const inside = (script: string) => kubelet.api.shell(web, "server", script);
    assert.equal(await inside("cat /config/color"), "blue");
    await host.config.write({ color: "green" });
    await waitFor("the new file in the pod", async () => (await inside("cat /config/color")) === "green", { intervalMs: 200 });
    assert.equal(await inside("touch /config/x 2>/dev/null || echo refused"), "refused");
    assert.match(await inside("grep ' /memory ' /proc/mounts"), inGuest ? / \/memory / : /^tmpfs \/memory tmpfs/);
    assert.equal(await inside("echo kept >/memory/x && cat /memory/x"), "kept");
    assert.equal(await inside("cat /about/labels"), 'app="web"');
  });

  test("logs through the kubelet: whole, the end, one that is followed", async () => {
    const web = await kubelet.pod("web");
    const lines = (await kubelet.api.logs(web, "reader")).trimEnd().split("\n");
    const numbered = Array.from({ length: 100 }, (_, index) => `line ${index + 1}`);
    // Each stream is in order; between two pipes there is none.
    assert.deepEqual(
      lines.filter((line) => line !== "to stderr"),
      numbered,
    );
    assert.equal(lines.length, 101);
    assert.equal(await kubelet.api.logs(web, "reader", "tailLines=2"), `${lines.slice(-2).join("\n")}\n`);
    assert.match(await kubelet.api.logs(web, "server"), /^serving\n/);
    const crashed = await kubelet.pod("crashes-once");
    assert.equal(await kubelet.api.logs(crashed, "main", "previous=true"), "the first run\n");
    assert.equal(await kubelet.api.logs(crashed, "main"), "the second run\n");
  });

  for (const protocol of ["v4", "v5"] as const) {
    test(`exec through the kubelet, ${protocol}: streams apart, exit code, standard input`, async () => {
      const web = await kubelet.pod("web");
      const failed = await kubelet.api.exec(web, "server", ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], { protocol });
      assert.deepEqual([failed.stdout, failed.stderr], ["out\n", "err\n"]);
      assert.equal(failed.status.status, "Failure");
      assert.match(JSON.stringify(failed.status.details), /"ExitCode","message":"3"/);
      const line = await kubelet.api.exec(web, "server", ["/bin/head", "-n", "1"], { protocol, stdin: "a line\n" });
      assert.deepEqual([line.stdout, line.status.status], ["a line\n", "Success"]);
    });
  }

  test("run through the kubelet, which is ExecSync", async () => {
    const web = await kubelet.pod("web");
    assert.equal(await kubelet.api.run(web, "server", ["/bin/hostname"]), `${web.metadata.name}\n`);
  });

  test("what a container wrote to its termination log is its message", async () => {
    const { state } = only(await kubelet.pod("finishes"));
    assert.deepEqual([state.terminated?.exitCode, state.terminated?.reason, state.terminated?.message], [0, "Completed", "all done"]);
  });

  test("a container that crashes is started again, beside its volume", async () => {
    const { restartCount, lastState } = only(await kubelet.pod("crashes-once"));
    assert.equal(restartCount, 1);
    assert.deepEqual([lastState.terminated?.exitCode, lastState.terminated?.message], [7, "no luck"]);
  });

  test("a failing HTTP probe makes a pod not ready, one that passes ready again", async () => {
    const web = await kubelet.pod("web");
    await kubelet.api.shell(web, "server", "mv /www/index.html /www/away.html");
    await kubelet.waitForPod("web", "not ready", (pod) => !isReady(pod));
    await kubelet.api.shell(web, "server", "mv /www/away.html /www/index.html");
    assert.deepEqual(lives(await kubelet.waitForPod("web", "ready", isReady)), lives(web));
  });

  test("a failing exec probe restarts its container and no other", async () => {
    const pod = await kubelet.pod("alive");
    const sandboxes = await sandboxesOf(node, pod);
    await kubelet.api.shell(pod, "main", "rm /tmp/alive");
    const again = await kubelet.waitForPod("alive", "restarted", (now) => only(now).restartCount === 1 && isReady(now));
    assert.notEqual(only(again).containerID, only(pod).containerID);
    assert.deepEqual(await sandboxesOf(node, again), sandboxes);
  });

  test("restartPolicy Never and a container that needs the host: the limit, and the remedy in the message", async () => {
    const name = "needs-the-host-never";
    if (!inGuest) {
      await kubelet.waitForPod(name, "Ready", isReady);
      return;
    }
    const second = (pod: PodObject) => pod.status.containerStatuses?.find((container) => container.name === "second");
    const pod = await kubelet.waitForPod(name, "refused", (now) => second(now)?.state.waiting?.message?.includes("aurae-flat") ?? false);
    assert.match(second(pod)?.state.waiting?.message ?? "", /is a unix socket.*runtimeClassName: aurae-flat/);
    await sleep(10_000);
    assert.deepEqual(await placementsOf(node, await kubelet.pod(name)), ["microvm: Default"], "no second sandbox");
  });

  test("the daemon is killed and started: nothing restarts, and everything works", async () => {
    const earlier = await livesOf(lasting);
    await node.kill9();
    await sleep(3000);
    await node.startDaemon();
    await waitForExec();
    await sleep(10_000);
    assert.deepEqual(await livesOf(lasting), earlier);
  });

  test("the kubelet is killed and started: nothing restarts", async () => {
    const earlier = await livesOf(lasting);
    await kubelet.kill9();
    await kubelet.startProcess();
    for (const name of lasting) await kubelet.waitForPod(name, "Ready", isReady);
    await waitForExec();
    assert.deepEqual(await livesOf(lasting), earlier);
  });

  test(`${enduranceMinutes} minutes, the daemon killed every two: nothing restarts`, async (context) => {
    const earlier = await livesOf(lasting);
    const endMs = performance.now() + enduranceMinutes * 60_000;
    let kills = 0;
    for (; performance.now() < endMs; kills++) {
      await sleep(Math.min(killEveryMs, endMs - performance.now()));
      await node.kill9();
      await sleep(2000);
      await node.startDaemon();
      await waitForExec();
      assert.deepEqual(await livesOf(lasting), earlier, `after kill ${kills + 1}`);
    }
    for (const name of lasting) await kubelet.waitForPod(name, "Ready", isReady);
    context.diagnostic(`${kills} kills, ${earlier.length} containers`);
  });

  test("a deleted pod ends in grace, and nothing of it stays", async () => {
    const web = await kubelet.pod("web");
    await kubelet.remove("web");
    // The grace period, then the kubelet's own collection of what is dead, once a minute.
    await waitFor("its sandbox to go", async () => (await sandboxesOf(node, web)).length === 0, { timeoutMs: 150_000, intervalMs: 500 });
    assert.equal(await readFile(join(host.wordsDir, "web"), "utf8"), "gone\n");
    assert.equal(await kubelet.find("web"), undefined);
    const dir = join(kubelet.places.rootDir, "pods", web.metadata.uid);
    await waitFor("its volumes to go", () => !existsSync(dir), { timeoutMs: 90_000, intervalMs: 500 });
  });

  async function livesOf(names: readonly string[]): Promise<readonly string[]> {
    const pods = await Promise.all(names.map((name) => kubelet.pod(name)));
    return pods.flatMap((pod) => lives(pod).map((life) => `${pod.metadata.name} ${life}`));
  }

  /** The kubelet takes a moment to find a daemon again. */
  async function waitForExec(): Promise<void> {
    for (const name of lasting) {
      const pod = await kubelet.pod(name);
      const container = name === "web" ? "server" : "main";
      const works = async () => (await kubelet.api.shell(pod, container, "echo works")) === "works";
      await waitFor(`exec in ${name}`, works, { timeoutMs: 20_000, intervalMs: 500 });
    }
  }
}
