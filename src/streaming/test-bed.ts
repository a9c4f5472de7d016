import { once } from "node:events";
import { mkdir, mkdtempDisposable } from "node:fs/promises";
import { createConnection, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

import { FakeAuraed } from "../agent/fake-auraed.ts";
import { silentLog } from "../lib/log.ts";
import type { ContainerRecord } from "../runtime/container.ts";
import { fakePodRecord, fakeRuntime } from "../runtime/fake.ts";
import type { Sandbox } from "../runtime/pod.ts";
import { Container, Pod, podStateDir } from "../runtime/runtime.ts";
import type { ExecStreamRequest, StreamRequest, StreamUrls } from "../runtime/stream-request.ts";
import type { StreamingOptions } from "./options.ts";
import { openStreaming } from "./server.ts";

export const POD_ID = "a".repeat(64);
export const CONTAINER_ID = "c".repeat(64);

/** The streaming server before an auraed that is a fake behind the real contract: sockets on both sides are real. */
export class TestBed implements AsyncDisposable {
  readonly auraed: FakeAuraed;
  readonly #streaming: StreamUrls & AsyncDisposable;
  readonly #resources: AsyncDisposableStack;

  private constructor(parts: { auraed: FakeAuraed; streaming: StreamUrls & AsyncDisposable; resources: AsyncDisposableStack }) {
    this.auraed = parts.auraed;
    this.#streaming = parts.streaming;
    this.#resources = parts.resources;
  }

  static async open(options: Partial<StreamingOptions> = {}): Promise<TestBed> {
    await using stack = new AsyncDisposableStack();
    const directory = stack.use(await mkdtempDisposable(join(tmpdir(), "aurae-cri-streaming-")));
    const runtime = fakeRuntime(directory.path);
    const pod = new Pod(fakePodRecord({ id: POD_ID, state: { phase: "ready", sandbox: { guest: {} } as Sandbox } }), directory.path);
    stack.defer(() => pod.disconnect());
    const running = { id: CONTAINER_ID, podId: POD_ID, state: { phase: "running", pid: 1, startedAtNs: "1" } } as ContainerRecord;
    runtime.pods.set(POD_ID, pod);
    runtime.containers.set(CONTAINER_ID, new Container(running, pod));
    const socketPath = join(podStateDir(directory.path, POD_ID), "auraed.sock");
    await mkdir(dirname(socketPath), { recursive: true });
    const auraed = stack.use(await FakeAuraed.listen(socketPath));
    const settings = { address: "127.0.0.1", port: 0, streamCreationTimeoutMs: 10_000, drainTimeoutMs: 0, ...options };
    const streaming = stack.use(await openStreaming(settings, { runtime, log: silentLog }));
    return new TestBed({ auraed, streaming, resources: stack.move() });
  }

  url(request: StreamRequest): string {
    return this.#streaming.register(request);
  }

  /** Stops the server alone. */
  async stop(): Promise<void> {
    await this.#streaming[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources[Symbol.asyncDispose]();
  }
}

/** All streams but stdin, unless `changes` says otherwise. */
export function execRequest(command: readonly string[], changes: Partial<ExecStreamRequest> = {}): ExecStreamRequest {
  return { kind: "exec", containerId: CONTAINER_ID, command, terminal: false, stdin: false, stdout: true, stderr: true, ...changes };
}

/** A client's connection with the head of an upgrade sent. */
export function connectTo(url: string, ...headers: readonly string[]): Socket {
  const { hostname, port, pathname } = new URL(url);
  const socket = createConnection(Number(port), hostname);
  socket.on("error", () => {});
  socket.write([`POST ${pathname} HTTP/1.1`, "Host: x", "Connection: Upgrade", "Upgrade: SPDY/3.1", ...headers, "", ""].join("\r\n"));
  return socket;
}

/** Everything until the server closes. */
export async function readAll(socket: Socket): Promise<string> {
  let text = "";
  socket.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
  await once(socket, "close");
  return text;
}
