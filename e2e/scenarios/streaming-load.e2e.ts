import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";

import type { Container } from "../harness/container.ts";
import { unary } from "../harness/cri-client.ts";
import { footprintOf } from "../harness/footprint.ts";
import type { Pod } from "../harness/pod.ts";
import { isSoak, podsUnderTest, runtimeUnderTest } from "../harness/settings.ts";
import { type Report, StreamingClient } from "../harness/streaming-client.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const MiB = 1024 * 1024;
const echoPort = 8080;
const dose = chooseDose();
/** What an allocator may keep of its peak; it is used again by the next load, and no more is taken. */
const keptMiB = { daemon: 128, auraed: 12 };

const node = useNode();
const skip = runtimeUnderTest() === "containerd" ? "measures our processes" : false;
const options = { skip, timeout: (isSoak() ? 40 : 4) * 60_000 };

/** An emulated guest is many times slower than what it emulates. */
function chooseDose() {
  const exec = ["spdy", "websocket"] as const;
  const forward = ["spdy", "tunnel"] as const;
  if (!isSoak()) return { bytes: 64 * MiB, sessions: 40, connections: 300, exec: exec.slice(1), forward: forward.slice(0, 1) };
  const whole = { bytes: 1024 * MiB, sessions: 200, connections: 10_000, exec, forward };
  return podsUnderTest() === "microvm" ? { ...whole, bytes: 128 * MiB, sessions: 100, connections: 1000 } : whole;
}

test("bytes each way through exec and through port-forward, none lost or changed", options, async (t) => {
  await using load = await Load.start(t);
  const { pod, container, client } = load;
  for (const protocol of dose.exec) {
    const report = await client.echo([await client.echoUrl(container)], { protocol, bytes: dose.bytes });
    load.tell(`exec over ${protocol}`, report);
    assert.equal(report.bytes, dose.bytes);
  }
  for (const protocol of dose.forward) {
    const report = await client.forward(pod, { protocol, port: echoPort, connections: 1, parallel: 1, bytes: dose.bytes });
    load.tell(`port-forward over ${protocol}`, report);
    assert.equal(report.bytes, dose.bytes);
  }
  await load.settle();
});

test("many sessions at once", options, async (t) => {
  await using load = await Load.start(t);
  const { container, client } = load;
  for (const protocol of dose.exec) {
    const urls = await Promise.all(Array.from({ length: dose.sessions }, () => client.echoUrl(container)));
    const report = await client.echo(urls, { protocol, bytes: 64 * 1024 });
    load.tell(`${dose.sessions} sessions over ${protocol}`, report);
    assert.equal(report.whole, dose.sessions);
  }
  await load.settle();
});

test("many connections through one port-forward", options, async (t) => {
  await using load = await Load.start(t);
  const { pod, client } = load;
  for (const protocol of dose.forward) {
    const report = await client.forward(pod, { protocol, port: echoPort, connections: dose.connections, parallel: 8, bytes: 1024 });
    load.tell(`${dose.connections} connections over ${protocol}`, report);
    assert.equal(report.whole, dose.connections);
  }
  await load.settle();
});

/** A pod under load, and what its processes held before. */
class Load implements AsyncDisposable {
  readonly pod: Pod;
  readonly container: Container;
  readonly client: StreamingClient;
  readonly #t: TestContext;
  readonly #auraedPid: number;
  #before: Awaited<ReturnType<Load["look"]>> | undefined;

  /** MiB of the daemon before its first session. */
  readonly #idleMiB: number;

  private constructor(
    t: TestContext,
    parts: {
      readonly pod: Pod;
      readonly client: StreamingClient;
      readonly container: Container;
      readonly auraedPid: number;
      readonly idleMiB: number;
    },
  ) {
    this.#t = t;
    this.pod = parts.pod;
    this.client = parts.client;
    this.container = parts.container;
    this.#auraedPid = parts.auraedPid;
    this.#idleMiB = parts.idleMiB;
  }

  static async start(t: TestContext): Promise<Load> {
    const pod = await node().runPod();
    const client = new StreamingClient(node());
    const container = await client.startServer(pod, echoPort);
    const { runtime } = node().clients;
    const { info } = await unary(runtime, runtime.podSandboxStatus, { podSandboxId: pod.id, verbose: true });
    // On the host's side: a guest keeps the memory that it once touched, up to its size.
    const { supervisorPid } = JSON.parse(info["info"] ?? "") as { readonly supervisorPid: number };
    const { residentMiB } = await footprintOf(node().daemon.process.pid ?? 0);
    const load = new Load(t, { pod, client, container, auraedPid: supervisorPid, idleMiB: residentMiB });
    await load.#warmUp();
    return load;
  }

  /** Code that was not loaded yet, buffers that are kept: what the first use costs is no leak. */
  async #warmUp(): Promise<void> {
    for (const protocol of ["spdy", "websocket"] as const) {
      await this.client.echo([await this.client.echoUrl(this.container)], { protocol, bytes: 4 * MiB });
    }
    for (const protocol of ["spdy", "tunnel"] as const) {
      await this.client.forward(this.pod, { protocol, port: echoPort, connections: 8, parallel: 8, bytes: MiB });
    }
    this.#before = await waitFor("the processes to be few", async () => {
      const seen = await this.look();
      return seen.inside <= 3 && seen;
    });
  }

  /** Of the daemon and the pod's auraed, and the number of processes in the container. */
  async look() {
    const [daemon, auraed] = await Promise.all([footprintOf(node().daemon.process.pid ?? 0), footprintOf(this.#auraedPid)]);
    const inside = (await this.container.shell("ls -d /proc/[0-9]*")).split("\n").length;
    return { daemon, auraed, inside };
  }

  tell(what: string, { whole, bytes, hash, millis }: Report): void {
    const mode = podsUnderTest();
    const rate = (bytes / MiB / (millis / 1000)).toFixed(0);
    this.#t.diagnostic(
      `${mode}, ${what}: ${whole} whole, ${bytes} bytes each way in ${(millis / 1000).toFixed(1)} s, ${rate} MiB/s, last ${hash.slice(0, 12)}`,
    );
  }

  /** Descriptors and processes are as before, and memory nearly so. */
  async settle(): Promise<void> {
    const before = this.#before;
    assert.ok(before);
    let now = before;
    const settled = async () => {
      now = await this.look();
      return (
        now.daemon.descriptors <= before.daemon.descriptors &&
        now.auraed.descriptors <= before.auraed.descriptors &&
        now.daemon.children <= before.daemon.children &&
        now.auraed.children <= before.auraed.children &&
        now.inside <= before.inside &&
        now.daemon.residentMiB <= before.daemon.residentMiB + keptMiB.daemon &&
        now.auraed.residentMiB <= before.auraed.residentMiB + keptMiB.auraed
      );
    };
    try {
      await waitFor("memory, descriptors and processes to be as before", settled, { timeoutMs: 60_000, intervalMs: 500 });
    } finally {
      this.#t.diagnostic(`before: ${JSON.stringify(before)}; after: ${JSON.stringify(now)}; the daemon at first: ${this.#idleMiB} MiB`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pod[Symbol.asyncDispose]();
  }
}
