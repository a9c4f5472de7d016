import assert from "node:assert/strict";
import { readFile, readlink, rename } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { status } from "@grpc/grpc-js";

import { NamespaceMode, PodSandboxConfig } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { unary } from "../harness/cri-client.ts";
import { leases } from "../harness/leaks.ts";
import { freePort } from "../harness/ports.ts";
import { notInGuest, podsUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const node = useNode();
const webServer = (port: number) => ({ command: ["/bin/httpd", "-f", "-p", String(port), "-h", "/var/www"] });
const hostNetwork = { network: NamespaceMode.NODE, pid: NamespaceMode.CONTAINER };

async function get(url: string): Promise<string> {
  return await (await fetch(url, { signal: AbortSignal.timeout(2000), headers: { connection: "close" } })).text();
}

async function networkReady() {
  const { runtime } = node().clients;
  const response = await unary(runtime, runtime.status, { verbose: false });
  return response.status?.conditions.find((condition) => condition.type === "NetworkReady");
}

test("a pod's address is in its namespace and answers the host and other pods", async () => {
  await using pod = await node().runPod();
  await using other = await node().runPod();
  const server = await pod.start(webServer(80));
  const client = await other.start();
  const ip = (await pod.status()).network?.ip ?? "";
  assert.match(await server.shell("ip -4 addr show eth0"), new RegExp(`inet ${ip}/24`));
  assert.match(await server.shell("ip -4 addr show lo"), /inet 127\.0\.0\.1\/8/);
  assert.equal(await waitFor("the web server", () => get(`http://${ip}/`)), "hello from the pod\n");
  assert.equal(await client.shell(`wget -q -O - http://${ip}/`), "hello from the pod");
});

test("addresses are given back when the pod stops", async () => {
  const before = await leases(node().prefix);
  await using pod = await node().runPod();
  const ip = (await pod.status()).network?.ip ?? "";
  assert.ok((await leases(node().prefix)).includes(ip));
  await pod.stop();
  assert.deepEqual(await leases(node().prefix), before);
});

test("a hostPort leads to the pod from 127.0.0.1, and ends with it", async () => {
  const hostPort = await freePort();
  await using pod = await node().runPod({ portMappings: [{ containerPort: 8080, hostPort }] });
  await pod.start(webServer(8080));
  const ip = (await pod.status()).network?.ip ?? "";
  assert.equal(await waitFor("the hostPort", () => get(`http://127.0.0.1:${hostPort}/`)), "hello from the pod\n");
  assert.equal(await get(`http://${node().prefix.network.prefix}.1:${hostPort}/`), "hello from the pod\n");
  assert.equal(await get(`http://${ip}:8080/`), "hello from the pod\n");
  await pod.stop();
  await assert.rejects(get(`http://127.0.0.1:${hostPort}/`));
});

test("a pod on the host's network", { skip: notInGuest("such a pod is flat") }, async () => {
  const linux = { securityContext: { namespaceOptions: hostNetwork } };
  await using pod = await node().runPod({ hostname: "", linux });
  const container = await pod.start();
  assert.equal(await container.shell("readlink /proc/self/ns/net"), await readlink("/proc/self/ns/net"));
  assert.equal(await container.shell("hostname"), hostname());
  const described = await pod.status();
  assert.equal(described.network?.ip ?? "", "");
  assert.equal(described.linux?.namespaces?.options?.network, NamespaceMode.NODE);
});

test("DNS configuration: given, empty, absent", async () => {
  const dnsConfig = { servers: ["10.10.10.10", "10.10.10.11"], searches: ["a.example", "b.example"], options: ["ndots:8"] };
  await using given = await node().runPod({ dnsConfig });
  assert.equal(
    await (await given.start()).shell("cat /etc/resolv.conf"),
    "search a.example b.example\nnameserver 10.10.10.10\nnameserver 10.10.10.11\noptions ndots:8",
  );
  await using absent = await node().runPod();
  assert.equal(await (await absent.start()).shell("cat /etc/resolv.conf"), (await readFile("/etc/resolv.conf", "utf8")).trimEnd());
});

test("hostname, /etc/hostname, HOSTNAME and /etc/hosts", async () => {
  await using pod = await node().runPod({ hostname: "my-pod" });
  const container = await pod.start();
  assert.equal(await container.shell("hostname; cat /etc/hostname; echo $HOSTNAME"), "my-pod\nmy-pod\nmy-pod");
  assert.match(await container.shell("cat /etc/hosts"), /127\.0\.0\.1\s+localhost/);
});

test("sysctls of the pod's namespaces", async () => {
  const sysctls = { "kernel.shm_rmid_forced": "1", "net.ipv4.ip_unprivileged_port_start": "1234", "fs.mqueue.msg_max": "100" };
  await using pod = await node().runPod({ linux: { sysctls, securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } } } });
  const container = await pod.start();
  for (const [name, value] of Object.entries(sysctls)) {
    assert.equal(await container.shell(`cat /proc/sys/${name.replaceAll(".", "/")}`), value, name);
  }
  assert.notEqual((await readFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", "utf8")).trim(), "1234");
});

test("a sysctl of the whole host is refused and leaves nothing", { skip: notInGuest("every setting is the guest's own") }, async () => {
  const { runtime } = node().clients;
  const before = await leases(node().prefix);
  const refused = node().runPod({ linux: { sysctls: { "kernel.panic": "7" } } });
  await assertRefused(node().kind, refused, { code: status.INVALID_ARGUMENT, message: /kernel\.panic/ });
  assert.deepEqual((await unary(runtime, runtime.listPodSandbox, { filter: undefined })).items, []);
  assert.deepEqual(await leases(node().prefix), before);
});

test("without a CNI configuration the network is not ready and pods are refused", async () => {
  const path = join(node().prefix.cniConfDir, "10-e2e.conflist");
  await rename(path, `${path}.away`);
  try {
    const condition = await waitFor("NetworkReady false", async () => {
      const found = await networkReady();
      return found?.status === false ? found : undefined;
    });
    assert.notEqual(condition.reason, "");
    assert.notEqual(condition.message, "");
    await assertRefused(node().kind, node().runPod(), { code: status.UNAVAILABLE, message: new RegExp(node().prefix.cniConfDir) });
    if (podsUnderTest() === "microvm") return;
    await using onHost = await node().runPod({ hostname: "", linux: { securityContext: { namespaceOptions: hostNetwork } } });
    assert.equal((await (await onHost.start()).exec(["/bin/true"])).exitCode, 0);
  } finally {
    await rename(`${path}.away`, path);
  }
  await waitFor("NetworkReady true", async () => (await networkReady())?.status === true);
});

test("a sandbox is described as it was asked for", async () => {
  await using pod = await node().runPod({ labels: { a: "1" }, annotations: { b: "2" } });
  const described = await pod.status();
  assert.deepEqual(described.metadata, PodSandboxConfig.fromPartial(pod.config).metadata);
  assert.deepEqual(described.labels, { a: "1" });
  assert.deepEqual(described.annotations, { b: "2" });
  assert.equal(described.linux?.namespaces?.options?.pid, NamespaceMode.CONTAINER);
  assert.ok(Math.abs(Number(described.createdAt / 1_000_000n) - Date.now()) < 60_000);
});
