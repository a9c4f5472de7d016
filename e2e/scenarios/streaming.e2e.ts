import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createConnection } from "node:net";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { status } from "@grpc/grpc-js";

import { assertRefused } from "../harness/assertions.ts";
import { terminate } from "../harness/command.ts";
import { unary } from "../harness/cri-client.ts";
import type { Crictl } from "../harness/crictl.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const node = useNode();
const timeout = 60_000;

test("crictl exec: output, errors and the exit code", { timeout }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const result = await node().crictl.try("exec", container.id, "/bin/sh", "-c", "echo out; echo err >&2; exit 7");
  assert.equal(result.stdout, "out\n");
  assert.match(result.stderr, /^err$/m);
  assert.match(result.stderr, /exit code 7|exit code: 7|status 7/);
  assert.notEqual(result.exitCode, 0);
  assert.equal(await node().crictl.run("exec", container.id, "/bin/echo", "again"), "again");
});

test("crictl exec: a program that cannot run is named", { timeout }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const result = await node().crictl.try("exec", container.id, "/no/such/program");
  assert.notEqual(result.exitCode, 0);
  assert.match(result.stderr, /\/no\/such\/program/);
});

test("crictl exec -i: megabytes go through and the end of stdin arrives", { timeout }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const input = randomBytes(8 * 1024 * 1024);
  const child = node().crictl.startWithInput("exec", "-i", container.id, "/bin/cat");
  const hash = createHash("sha256");
  child.stdout.on("data", (chunk: Buffer) => hash.update(chunk));
  child.stdin.end(input);
  await once(child, "close");
  assert.equal(child.exitCode, 0);
  assert.equal(hash.digest("hex"), createHash("sha256").update(input).digest("hex"));
});

test("crictl exec -t: a terminal with the client's window", { timeout }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const output = await node().crictl.inTerminal(
    { columns: 101, rows: 33 },
    "exec",
    "-i",
    "-t",
    container.id,
    "/bin/sh",
    "-c",
    "tty; stty size",
  );
  assert.match(output, /\/dev\/pts\/\d+/);
  assert.match(output, /33 101/);
});

test("crictl attach: output from now on, input, and the end of the container", { timeout }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start({
    stdin: true,
    stdinOnce: true,
    command: ["/bin/sh", "-c", "while read line; do echo got $line; done"],
  });
  const child = node().crictl.startWithInput("attach", "-i", container.id);
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  child.stdin.write("one\n");
  await waitFor("the answer", async () => output.includes("got one"), { timeoutMs: 10_000 });
  child.stdin.end("two\n");
  await once(child, "close");
  assert.equal(output, "got one\ngot two\n");
  assert.equal((await container.waitExited()).exitCode, 0);
});

test("crictl port-forward: many connections at once, both directions to their ends", { timeout }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: ["/bin/sh", "-c", "nc -ll -p 8080 -e /bin/cat"] });
  await waitFor("the listener", async () => (await container.shell("cat /proc/net/tcp /proc/net/tcp6")).includes(":1F90"), {
    timeoutMs: 10_000,
  });
  await using forward = await PortForward.start(pod.id, 8080);
  const payloads = Array.from({ length: 10 }, () => randomBytes(300_000));
  const echoes = await Promise.all(payloads.map((payload) => echo(forward.port, payload)));
  for (const [index, payload] of payloads.entries()) assert.ok(echoes[index]?.equals(payload), `connection ${index}`);
});

test("crictl port-forward: the client is told when nothing listens", { timeout }, async () => {
  await using pod = await node().runPod();
  await using forward = await PortForward.start(pod.id, 8081);
  assert.equal((await echo(forward.port, Buffer.from("x"))).length, 0);
  await waitFor("the reason", async () => /8081.*refused/.test(forward.errors), { timeoutMs: 5000 });
});

test("crictl over WebSocket: exec with the end of stdin, its exit code, a terminal; port-forward", { timeout }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: ["/bin/sh", "-c", "nc -ll -p 8080 -e /bin/cat"] });
  const { crictl } = node();
  const input = randomBytes(2 * 1024 * 1024);
  const child = crictl.startWithInput("exec", "-r", "websocket", "-i", container.id, "/bin/cat");
  const hash = createHash("sha256");
  child.stdout.on("data", (chunk: Buffer) => hash.update(chunk));
  child.stdin.end(input);
  await once(child, "close");
  assert.equal(hash.digest("hex"), createHash("sha256").update(input).digest("hex"));
  const failed = await crictl.try("exec", "-r", "websocket", container.id, "/bin/sh", "-c", "echo out; exit 9");
  assert.equal(failed.stdout, "out\n");
  assert.match(failed.stderr, /9/);
  const seen = await crictl.inTerminal({ columns: 90, rows: 21 }, "exec", "-r", "websocket", "-i", "-t", container.id, "/bin/stty", "size");
  assert.match(seen, /21 90/);
  await using forward = await PortForward.start(pod.id, 8080, "-r", "websocket");
  const payload = randomBytes(300_000);
  assert.ok((await echo(forward.port, payload)).equals(payload));
});

test("clients that stand still cost neither memory nor other calls", { timeout }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const children = Array.from({ length: 4 }, (_, index) =>
    node().crictl.startWithInput("exec", "-r", index % 2 === 0 ? "spdy" : "websocket", container.id, "/bin/cat", "/dev/zero"),
  );
  try {
    await waitFor("the processes", async () => (await container.shell("ps -o args")).match(/dev.zero/g)?.length === 4, {
      timeoutMs: 10_000,
    });
    await delay(1000);
    const before = await residentBytes();
    await delay(2000);
    assert.ok((await residentBytes()) - before < 64 * 1024 * 1024);
    for (let round = 0; round < 10; round++) assert.equal(await container.shell("echo there"), "there");
  } finally {
    for (const child of children) child.kill("SIGKILL");
  }
  await waitFor("the processes' end", async () => !(await container.shell("ps -o args")).includes("/dev/zero"), { timeoutMs: 20_000 });
});

test("what is asked wrongly is refused by name", { timeout }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const { runtime } = node().clients;
  const streams = { stdin: false, stdout: true, stderr: true, tty: false };
  const exec = { containerId: container.id, cmd: ["/bin/true"], ...streams };
  const refused = (call: Promise<unknown>, code: status, message: RegExp) => assertRefused(node().kind, call, { code, message });
  await refused(unary(runtime, runtime.exec, { ...exec, tty: true }), status.INVALID_ARGUMENT, /stderr/);
  await refused(unary(runtime, runtime.exec, { ...exec, stdout: false, stderr: false }), status.INVALID_ARGUMENT, /stdin/);
  await refused(unary(runtime, runtime.exec, { ...exec, cmd: [] }), status.INVALID_ARGUMENT, /cmd/);
  await refused(unary(runtime, runtime.attach, { containerId: container.id, ...streams, tty: true }), status.INVALID_ARGUMENT, /stderr/);
  await container.stop(0);
  await refused(unary(runtime, runtime.exec, exec), status.FAILED_PRECONDITION, /RUNNING/);
  await refused(unary(runtime, runtime.attach, { containerId: container.id, ...streams }), status.FAILED_PRECONDITION, /RUNNING/);
});

test("an address works once, and not for plain HTTP", { timeout }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const { runtime } = node().clients;
  const request = { containerId: container.id, cmd: ["/bin/true"], stdin: false, stdout: true, stderr: true, tty: false };
  const { url } = await unary(runtime, runtime.exec, request);
  assert.match(url, /^http:\/\/127\.0\.0\.1:\d+\/exec\/[\w-]{8}$/);
  assert.equal((await fetch(url)).status, 400);
  assert.equal((await fetch(url)).status, 404);
  assert.equal((await fetch(url, { method: "POST" })).status, 404);
});

test("the process of a lost client goes", { timeout }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const child = node().crictl.startWithInput("exec", "-i", container.id, "/bin/sh", "-c", "cat; sleep 0.1; exec sleep 1");
  await waitFor("the process", async () => /cat/.test(await container.shell("ps -o args")), { timeoutMs: 10_000 });
  child.kill("SIGKILL");
  await waitFor("its end", async () => !/sleep 0.1/.test(await container.shell("ps -o args")), { timeoutMs: 20_000 });
});

async function residentBytes(): Promise<number> {
  const text = await readFile(`/proc/${node().daemon.process.pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(text)?.[1]) * 1024;
}

/** A running `crictl port-forward` of one port. */
class PortForward implements AsyncDisposable {
  readonly port: number;
  readonly #child: ReturnType<Crictl["startWithInput"]>;
  #errors = "";

  private constructor(child: ReturnType<Crictl["startWithInput"]>, port: number) {
    this.#child = child;
    this.port = port;
    child.stderr.on("data", (chunk: Buffer) => (this.#errors += chunk.toString()));
  }

  static async start(podId: string, port: number, ...options: readonly string[]): Promise<PortForward> {
    const child = node().crictl.startWithInput("port-forward", ...options, podId, `:${port}`);
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
    let errors = "";
    child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
    const local = await waitFor(
      "the local port",
      async () => {
        if (child.exitCode !== null) throw new Error(errors);
        return /127\.0\.0\.1:(\d+)/.exec(output)?.[1];
      },
      { timeoutMs: 10_000 },
    );
    return new PortForward(child, Number(local));
  }

  get errors(): string {
    return this.#errors;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await terminate(this.#child);
  }
}

/** Sends `payload`, half-closes, and reads to the end. */
async function echo(port: number, payload: Buffer): Promise<Buffer> {
  const socket = createConnection({ host: "127.0.0.1", port, allowHalfOpen: true });
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => {
    chunks.push(chunk);
    // A program of BusyBox ends with its input and may not wait for what it has still to say.
    if (Buffer.concat(chunks).length >= payload.length) socket.end();
  });
  socket.on("end", () => socket.end());
  socket.on("error", () => {});
  socket.write(payload);
  await once(socket, "close");
  return Buffer.concat(chunks);
}
