import assert from "node:assert/strict";
import { test } from "node:test";

import { measureStalled } from "../bench/stalled.ts";
import { percentile } from "../bench/statistics.ts";
import { unary } from "../harness/cri-client.ts";
import { SpdyClient } from "../harness/spdy-client.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const node = useNode();
const timeout = 300_000;
const MIB = 1024 * 1024;

test("ExecSync keeps its latency beside 200 execs whose stdin nobody reads", { timeout }, async (t) => {
  await using beside = await node().runPod();
  await using alone = await node().runPod();
  const containers = { beside: await beside.start(), alone: await alone.start() };
  const { besideMs, aloneMs } = await measureStalled(node(), containers, 15);
  const [slow, usual] = [percentile(besideMs, 50), percentile(aloneMs, 50)];
  t.diagnostic(`ExecSync: ${slow.toFixed(1)} ms beside them, ${usual.toFixed(1)} ms in a pod without`);
  // A stalled stream that held the others up would do so for good; the rest is the machine's noise.
  assert.ok(slow < 3 * usual + 50);
});

test("a forwarded connection that is not read holds up nobody else's", { timeout }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: ["/bin/nc", "-ll", "-p", "9001", "-e", "/bin/dd", "if=/dev/zero", "bs=64k", "count=512"] });
  await waitFor("the listener", async () => (await container.shell("cat /proc/net/tcp /proc/net/tcp6")).includes(":2329 "));
  using slow = await openForward(pod.id, () => {});
  slow.client.pause();
  let count = 0;
  using swift = await openForward(pod.id, (bytes) => (count += bytes.length));
  await swift.data.ended;
  assert.equal(count, 32 * MIB);
  // What stood still goes on where it was.
  slow.client.resume();
  await slow.data.ended;
  assert.equal(slow.count(), 32 * MIB);
});

async function openForward(podId: string, onBytes: (bytes: Buffer) => void) {
  const { runtime } = node().clients;
  const { url } = await unary(runtime, runtime.portForward, { podSandboxId: podId, port: [] });
  const client = await SpdyClient.open(url, "portforward.k8s.io");
  let count = 0;
  client.openStream({ streamtype: "error", port: "9001", requestid: "0" }, (bytes) => assert.fail(bytes.toString())).end();
  const data = client.openStream({ streamtype: "data", port: "9001", requestid: "0" }, (bytes) => {
    count += bytes.length;
    onBytes(bytes);
  });
  data.end();
  return { client, data, count: () => count, [Symbol.dispose]: () => client[Symbol.dispose]() };
}
