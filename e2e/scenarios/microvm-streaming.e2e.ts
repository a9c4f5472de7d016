import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";

import { WebSocket } from "ws";

import { runtimeUnderTest } from "../harness/settings.ts";
import { StreamingClient } from "../harness/streaming-client.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const skip = runtimeUnderTest() === "containerd" ? "about our microVMs" : false;
const node = useNode({ pods: "both" });
const echoPort = 8080;

// The whole set runs in a guest by `make microvm`; this is what is different there: a process, a terminal and a port behind the relay.
test("in a microVM, client-go: exec, a terminal, attach, port-forward to the guest's own loopback", {
  skip,
  timeout: 120_000,
}, async () => {
  await using pod = await node().runPod({ runtimeHandler: "aurae-vm" });
  const container = await pod.start({
    stdin: true,
    command: ["/bin/sh", "-c", `nc -ll -p ${echoPort} -e /bin/cat & httpd -p 127.0.0.1:8081 -h /etc; exec cat`],
  });
  const client = new StreamingClient(node());
  for (const protocol of ["spdy", "websocket", "websocket-v4"] as const) {
    const failing = await client.exec(container, ["/bin/sh", "-c", "echo out; echo err >&2; exit 7"], { protocol });
    assert.equal(await failing.end(), 7, `${protocol}: ${failing.stderr}`);
    assert.equal(failing.stdout, "out\n");
    const command = protocol === "websocket-v4" ? ["/bin/head", "-c", "300000"] : ["/bin/cat"];
    const report = await client.echo([await client.echoUrl(container, command)], { protocol, bytes: 300_000 });
    assert.equal(report.bytes, 300_000, protocol);
    const script = "trap 'stty size; exit 5' WINCH; stty size; while :; do sleep 0.05; done";
    const terminal = await client.exec(container, ["/bin/sh", "-c", script], { protocol, stdin: true, sizes: "101x33,132x43" });
    await waitFor("the first window", () => terminal.stdout.includes("33 101"));
    terminal.child.kill("SIGWINCH");
    assert.equal(await terminal.end(), 5, terminal.stderr);
    assert.match(terminal.stdout, /43 132\r\n$/);
  }
  for (const protocol of ["spdy", "tunnel"] as const) {
    const report = await client.forward(pod, { protocol, port: echoPort, connections: 12, parallel: 4, bytes: 70_000 });
    assert.equal(report.bytes, 12 * 70_000, protocol);
  }
  const websocket = new WebSocket(await client.forwardUrl(pod, [8081]), "v4.channel.k8s.io");
  let answer = "";
  websocket.on("message", (data: Buffer) => (answer += data.readUInt8(0) === 0 ? data.toString("latin1", 1) : ""));
  const closed = once(websocket, "close");
  await once(websocket, "open");
  websocket.send(Buffer.from("\0GET /passwd HTTP/1.0\r\n\r\n"));
  await closed;
  assert.equal(answer.slice(0, 2), "\x91\x1f");
  assert.match(answer.slice(2), /^HTTP\/1\.. 200 OK\r\n.*root:x:0:0:/s);
  const attached = await client.attach(container, { protocol: "websocket", stdin: true });
  await waitFor("the attached client to hear", () => attached.child.stdin.write("hello\n") && attached.stdout.includes("hello\n"), {
    intervalMs: 200,
  });
  await container.stop(0);
  assert.equal(await attached.end(), 0, attached.stderr);
});
