import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempDisposable, readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import { status } from "@grpc/grpc-js";
import { WebSocket } from "ws";

import { NamespaceMode } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { mustRun } from "../harness/command.ts";
import type { Container } from "../harness/container.ts";
import { unary } from "../harness/cri-client.ts";
import { freePort } from "../harness/ports.ts";
import { podsUnderTest, runtimeUnderTest } from "../harness/settings.ts";
import { type ProcessProtocol, type Session, StreamingClient } from "../harness/streaming-client.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

// Everything here goes over TLS; streaming.e2e.ts does without.
const directory = await mkdtempDisposable(join(tmpdir(), "ae2e-tls-"));
after(() => directory.remove());
const caFile = join(directory.path, "server.crt");
const keyFile = join(directory.path, "server.key");
const forLoopback = ["-subj", "/CN=aurae-cri", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"];
await mustRun("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", ...forLoopback, "-keyout", keyFile, "-out", caFile]);

const node = useNode({ config: { streaming: { tls_cert_file: caFile, tls_key_file: keyFile } } });
const skip = runtimeUnderTest() === "containerd" ? "containerd speaks a part of these protocols, and is not given the certificate" : false;
const options = { skip, timeout: 120_000 };
/** What is another way in a microVM. */
const flatOnly = {
  ...options,
  skip: skip || (podsUnderTest() === "microvm" ? "into a guest connections are made by its own auraed" : false),
};
const client = () => new StreamingClient(node(), { caFile });

const protocols: readonly ProcessProtocol[] = ["spdy", "spdy-v1", "spdy-v2", "spdy-v3", "spdy-v4", "websocket", "websocket-v4", "fallback"];
const echoPort = 8080;

test("exec by client-go, every protocol: output, errors and the exit code", options, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const script = "echo out; echo err >&2; exit $0";
  for (const protocol of protocols) {
    const well = await client().exec(container, ["/bin/sh", "-c", script, "0"], { protocol });
    assert.equal(await well.end(), 0, `${protocol}: ${well.stderr}`);
    assert.deepEqual([well.stdout, well.stderr], ["out\n", "err\n"], protocol);
    const failed = await client().exec(container, ["/bin/sh", "-c", script, "7"], { protocol });
    const code = await failed.end();
    // A client of v1 leaves at the first of two: the end of its streams, a word on the error stream. Neither waits for the other.
    if (protocol === "spdy-v1") {
      assert.ok(code === 0 || code === 125, failed.stderr);
      continue;
    }
    assert.equal(failed.stdout, "out\n", protocol);
    assert.match(failed.stderr, /^err$/m, protocol);
    // Before v4 the code is a word among others.
    if (/-v[23]$/.test(protocol)) assert.match(failed.stderr, /exit code: 7$/m, protocol);
    else assert.equal(code, 7, `${protocol}: ${failed.stderr}`);
  }
});

test("exec by client-go, every protocol: what goes in comes out", options, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const bytes = 300_000;
  for (const protocol of protocols) {
    // The first version and WebSocket before v5 do not tell the end of stdin.
    const command = protocol === "spdy-v1" || protocol === "websocket-v4" ? ["/bin/head", "-c", String(bytes)] : ["/bin/cat"];
    const url = await client().echoUrl(container, command);
    const report = await client().echo([url], { protocol, bytes });
    assert.deepEqual([report.whole, report.bytes], [1, bytes], protocol);
  }
});

test("exec by client-go: a terminal, its window and each later one", options, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const script = "trap 'stty size; exit 5' WINCH; tty; stty size; while :; do sleep 0.05; done";
  for (const protocol of ["spdy", "websocket", "websocket-v4"] as const) {
    const session = await client().exec(container, ["/bin/sh", "-c", script], { protocol, stdin: true, sizes: "101x33,132x43" });
    await waitFor(`the first window over ${protocol}`, () => session.stdout.includes("33 101"));
    assert.match(session.stdout, /^\/dev\/pts\/\d+\r\n/);
    session.child.kill("SIGWINCH");
    assert.equal(await session.end(), 5, session.stderr);
    assert.match(session.stdout, /43 132\r\n$/);
  }
});

test("attach by client-go: several clients at once, and the end of the container ends them", options, async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ stdin: true, command: ["/bin/sh", "-c", "while read line; do echo got $line; done"] });
  const listening = (["spdy", "spdy-v1", "websocket-v4"] as const).map((protocol) => client().attach(container, { protocol }));
  const listeners = await Promise.all(listening);
  const writer = await client().attach(container, { protocol: "websocket", stdin: true });
  // Attached means from now on: a line is repeated until all have seen one.
  await waitFor(
    "all to be attached",
    () => {
      writer.child.stdin.write("one\n");
      return [...listeners, writer].every(({ stdout }) => stdout.includes("got one\n"));
    },
    { intervalMs: 200 },
  );
  await container.stop(0);
  for (const session of [...listeners, writer]) assert.equal(await session.end(), 0, session.stderr);
});

test("port-forward by client-go: SPDY and the tunnel, connections one after the other and at once", options, async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: ["/bin/sh", "-c", `nc -ll -p ${echoPort} -e /bin/cat`] });
  await listens(container);
  for (const protocol of ["spdy", "tunnel"] as const) {
    const report = await client().forward(pod, { protocol, port: echoPort, connections: 24, parallel: 6, bytes: 70_000 });
    assert.deepEqual([report.whole, report.bytes], [24, 24 * 70_000], protocol);
  }
});

test("port-forward to a pod on the host's network", flatOnly, async () => {
  await using pod = await node().runPod({ linux: { securityContext: { namespaceOptions: { network: NamespaceMode.NODE } } } });
  const port = await freePort();
  await client().startServer(pod, port);
  const report = await client().forward(pod, { protocol: "spdy", port, connections: 4, parallel: 2, bytes: 70_000 });
  assert.deepEqual([report.whole, report.bytes], [4, 4 * 70_000]);
});

test("port-forward when what dials is killed: an open connection goes on, and the next is dialled again", flatOnly, async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: ["/bin/sh", "-c", `nc -ll -p ${echoPort} -e /bin/cat`] });
  await listens(container);
  const websocket = new WebSocket(await client().forwardUrl(pod, [echoPort]), "v4.channel.k8s.io", { ca: await readFile(caFile) });
  let echoed = "";
  websocket.on("message", (data: Buffer) => {
    if (data.readUInt8(0) === 0) echoed += data.toString("latin1", 1);
  });
  await once(websocket, "open");
  websocket.send(Buffer.from("\0before "));
  await waitFor("the echo", () => echoed.endsWith("before "));
  const dialers = await dialersOf();
  assert.equal(dialers.length, 1);
  for (const pid of dialers) process.kill(pid, "SIGKILL");
  await waitFor("it to be gone", async () => (await dialersOf()).length === 0);
  websocket.send(Buffer.from("\0after"));
  await waitFor("the echo", () => echoed.endsWith("before after"));
  websocket.close();
  const report = await client().forward(pod, { protocol: "spdy", port: echoPort, connections: 2, parallel: 1, bytes: 1024 });
  assert.equal(report.whole, 2);
});

/** `auraed dial` of the daemon. */
async function dialersOf(): Promise<number[]> {
  const children = (await readFile(`/proc/${node().daemon.process.pid}/task/${node().daemon.process.pid}/children`, "utf8"))
    .trim()
    .split(" ");
  const found: number[] = [];
  for (const child of children.filter((word) => word !== "")) {
    const commandLine = await readFile(`/proc/${child}/cmdline`, "utf8").catch(() => "");
    if (commandLine.split("\0")[1] === "dial") found.push(Number(child));
  }
  return found;
}

test("port-forward by two channels a port: bytes both ways, a port where nobody listens, the end", options, async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: ["/bin/sh", "-c", `nc -ll -p ${echoPort} -e /bin/head -c 9`] });
  await listens(container);
  const websocket = new WebSocket(await client().forwardUrl(pod, [echoPort, 8081]), "v4.channel.k8s.io", { ca: await readFile(caFile) });
  const channels: [string, string, string, string] = ["", "", "", ""];
  websocket.on("message", (data: Buffer) => (channels[data.readUInt8(0)] += data.toString("latin1", 1)));
  const closed = once(websocket, "close");
  await once(websocket, "open");
  websocket.send(Buffer.from("\0both "));
  websocket.send(Buffer.from("\0ways"));
  assert.equal((await closed)[0], 1000);
  assert.deepEqual(channels.slice(0, 3), ["\x90\x1fboth ways", "\x90\x1f", "\x91\x1f"]);
  assert.equal(channels[3].slice(0, 2), "\x91\x1f");
  assert.match(channels[3].slice(2), /^cannot forward to port 8081: .*refused/);
});

test("a lost client: the terminal hangs up, stdin ends, and what stays is killed after a grace", options, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const stubborn = (name: string) => `trap '' HUP; touch /tmp/${name}; cat >/dev/null; touch /tmp/${name}.eof; exec sleep 98765`;
  const polite = (name: string) => `trap 'touch /tmp/${name}.hup; exit' HUP; touch /tmp/${name}; while :; do sleep 0.05; done`;
  const sessions: Session[] = [];
  for (const protocol of ["spdy", "websocket"] as const) {
    sessions.push(await client().exec(container, ["/bin/sh", "-c", stubborn(protocol)], { protocol, stdin: true }));
    sessions.push(await client().exec(container, ["/bin/sh", "-c", polite(`${protocol}-tty`)], { protocol, stdin: true, sizes: "80x24" }));
  }
  const files = (...names: readonly string[]) => waitFor(names.join(" "), async () => await has(container, names), { timeoutMs: 20_000 });
  await files("spdy", "spdy-tty", "websocket", "websocket-tty");
  for (const { child } of sessions) child.kill("SIGKILL");
  await files("spdy.eof", "websocket.eof", "spdy-tty.hup", "websocket-tty.hup");
  const stubborns = async () => (await container.shell("ps -o args")).match(/^sleep 98765$/gm)?.length ?? 0;
  assert.equal(await stubborns(), 2, "what does not end by itself has a grace");
  await waitFor("the end of the grace", async () => (await stubborns()) === 0, { timeoutMs: 25_000, intervalMs: 500 });
});

test("the end of the container ends its sessions, with a pid namespace of its own and with the pod's", options, async () => {
  for (const pid of [NamespaceMode.CONTAINER, NamespaceMode.POD]) {
    await using pod = await node().runPod({ linux: { securityContext: { namespaceOptions: { pid } } } });
    const container = await pod.start();
    const sessions: Session[] = [];
    for (const protocol of ["spdy", "websocket"] as const) {
      sessions.push(await client().exec(container, ["/bin/sh", "-c", "echo here; exec sleep infinity"], { protocol, stdin: true }));
      sessions.push(
        await client().exec(container, ["/bin/sh", "-c", "echo here; exec sleep infinity"], { protocol, stdin: true, sizes: "9x9" }),
      );
    }
    await waitFor("the sessions", () => sessions.every(({ stdout }) => stdout.includes("here")));
    await container.stop(0);
    for (const session of sessions) assert.equal(await session.end(), 137, session.stderr);
  }
});

test("a daemon that stops lets sessions end, then tells them", options, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const short = await client().exec(container, ["/bin/sh", "-c", "echo here; read line; echo $line; exit 3"], {
    protocol: "spdy",
    stdin: true,
  });
  const long = await client().exec(container, ["/bin/sh", "-c", "echo here; exec sleep infinity"], { protocol: "websocket" });
  await waitFor("the sessions", () => [short, long].every(({ stdout }) => stdout === "here\n"));
  const restarting = node().restart();
  short.child.stdin.write("still there\n");
  assert.equal(await short.end(), 3);
  assert.equal(short.stdout, "here\nstill there\n");
  await restarting;
  assert.equal(await long.end(), 125);
  assert.match(long.stderr, /the daemon is shutting down/);
});

test("a thousand addresses may wait; the next one is refused", options, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const { runtime } = node().clients;
  const ask = () => client().execUrl(container, ["/bin/true"], {});
  // Those of the tests before wait no more: they were used.
  for (let round = 0; round < 20; round++) await Promise.all(Array.from({ length: 50 }, ask));
  const refused = unary(runtime, runtime.portForward, { podSandboxId: pod.id, port: [] });
  await assertRefused(node().kind, refused, { code: status.RESOURCE_EXHAUSTED, message: /1000 .*wait/ });
  // The addresses are forgotten with the daemon.
  await node().restart();
  const session = await client().exec(container, ["/bin/true"], { protocol: "spdy" });
  assert.equal(await session.end(), 0);
});

test("no pod reaches the listener, not even with route_localnet", options, async () => {
  await using pod = await node().runPod({ linux: { sysctls: { "net.ipv4.conf.all.route_localnet": "1" } } });
  const container = await pod.start({ linux: { securityContext: { capabilities: { addCapabilities: ["NET_ADMIN"] } } } });
  const url = new URL(await client().forwardUrl(pod));
  const { bridge, prefix } = node().prefix.network;
  const say = (address: string, port: number | string) =>
    container.shell(`echo hello | timeout 3 busybox nc -w 2 ${address} ${port} 2>&1 || true`);
  assert.match(await say(`${prefix}.1`, url.port), /refused/, "by the bridge's address nothing listens");

  // What portmap does for host ports, and what a pod with NET_ADMIN could make of it.
  await mustRun("sysctl", ["-qw", `net.ipv4.conf.${bridge}.route_localnet=1`]);
  await container.shell(`ip address del 127.0.0.1/8 dev lo && ip route add 127.0.0.1 via ${prefix}.1`);
  await using open = await greet();
  assert.match(await say("127.0.0.1", open.port), /who goes there/, "the way is open");
  assert.equal(await say("127.0.0.1", url.port), "");
  const session = await client().forward(pod, { protocol: "spdy", port: 1, connections: 0, parallel: 1, bytes: 1 });
  assert.equal(session.whole, 0, "the node itself still gets through");
});

async function listens(container: Container): Promise<void> {
  const port = `:${echoPort.toString(16).toUpperCase()}`;
  await waitFor("the listener", async () => (await container.shell("cat /proc/net/tcp /proc/net/tcp6")).includes(port));
}

async function has(container: Container, names: readonly string[]): Promise<boolean> {
  const found = (await container.shell("ls /tmp")).split("\n");
  return names.every((name) => found.includes(name));
}

/** A server on the host's loopback that greets whoever comes. */
async function greet() {
  const server = createServer((socket) => socket.on("error", () => {}).end("who goes there\n"));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const bound = server.address();
  return {
    port: typeof bound === "object" && bound !== null ? bound.port : 0,
    [Symbol.asyncDispose]: async () => void server.close(),
  };
}
