import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, suite, test } from "node:test";

import { type ClientReadableStream, credentials, type ServiceError, status } from "@grpc/grpc-js";

import { type ContainerEventResponse, ContainerEventType, PodSandboxConfig, RuntimeServiceClient } from "../../../api/gen/cri/v1/api.ts";
import { silentLog } from "../../lib/log.ts";
import { Events, type LifeEvent } from "../../runtime/events.ts";
import type { PodRecord } from "../../runtime/pod.ts";
import type { Runtime } from "../../runtime/runtime.ts";
import { decodeSandboxConfig } from "../codec/sandbox-config.ts";
import { serve } from "../server.ts";

const MAX_WAITING = 50;

suite("GetContainerEvents over a socket", () => {
  const events = new Events({ maxWaiting: MAX_WAITING }, { log: silentLog });
  const stack = new AsyncDisposableStack();
  let connect: () => RuntimeServiceClient;

  before(async () => {
    const dir = await mkdtemp(join(tmpdir(), "aurae-events-"));
    stack.defer(() => rm(dir, { recursive: true }));
    // Of the runtime this call knows the events alone.
    const runtime = { events } as unknown as Runtime;
    stack.use(
      await serve(join(dir, "cri.sock"), {
        streamUrls: { register: () => "" },
        runtime,
        log: silentLog,
        shutdown: new AbortController().signal,
      }),
    );
    connect = () => {
      // A connection each: one that is not read from holds up all calls on it.
      const options = { "grpc.use_local_subchannel_pool": 1 };
      const client = new RuntimeServiceClient(`unix:${join(dir, "cri.sock")}`, credentials.createInsecure(), options);
      stack.defer(() => client.close());
      return client;
    };
  });
  after(() => stack.disposeAsync());

  test("a client that reads is served while one that does not is cut off", async () => {
    const reader = await open(connect());
    const sleeper = await open(connect());
    // grpc-js hoards without end before the first read, and has flow control after it.
    sleeper.read(0);
    const seen: string[] = [];
    const all = Promise.withResolvers<void>();
    const count = 1000;
    reader.on("data", ({ containerId, containerEventType, podSandboxStatus }: ContainerEventResponse) => {
      assert.equal(containerEventType, ContainerEventType.CONTAINER_STARTED_EVENT);
      assert.equal(podSandboxStatus?.metadata?.name, "web");
      if (seen.push(containerId) === count) all.resolve();
    });
    for (let index = 0; index < count; index++) {
      events.publish(event(`c${index}`));
      // The reader keeps up as long as it never has too many before it.
      while (seen.length < index - MAX_WAITING / 2) await new Promise(setImmediate);
    }
    await all.promise;
    assert.deepEqual(
      seen,
      Array.from({ length: count }, (_, index) => `c${index}`),
    );
    const cut = Promise.withResolvers<ServiceError>();
    sleeper.on("error", (error) => cut.resolve(error as ServiceError));
    let late = 0;
    sleeper.on("data", ({ containerId }: ContainerEventResponse) => assert.equal(containerId, `c${late++}`));
    assert.equal((await cut.promise).code, status.RESOURCE_EXHAUSTED);
    assert.ok(late < count, "no gap was passed over");
    reader.on("error", () => {});
    reader.cancel();
  });
});

async function open(client: RuntimeServiceClient): Promise<ClientReadableStream<ContainerEventResponse>> {
  const stream = client.getContainerEvents({});
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  stream.once("metadata", () => resolve());
  stream.once("error", reject);
  await promise;
  stream.off("error", reject);
  return stream;
}

const config = decodeSandboxConfig(
  PodSandboxConfig.fromPartial({ metadata: { name: "web", uid: "u", namespace: "n" }, annotations: { blob: "x".repeat(10_000) } }),
);

function event(id: string): LifeEvent {
  const pod: PodRecord = {
    version: 1,
    id: "pod",
    config,
    handler: "",
    placement: { mode: "flat", reason: "PolicyFlat", message: "" },
    bootId: "boot",
    cgroup: { driver: "cgroupfs", parent: "/", owned: true, path: "/pod" },
    createdAtNs: "1",
    state: { phase: "stopped", sandbox: undefined },
  };
  return { kind: "started", id, atNs: 2n, pod, containers: [] };
}
