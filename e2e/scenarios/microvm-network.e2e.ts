import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { test } from "node:test";

import { mustRun } from "../harness/command.ts";
import type { Container } from "../harness/container.ts";
import { machineOf } from "../harness/machine.ts";
import type { Node } from "../harness/node.ts";
import type { Pod } from "../harness/pod.ts";
import { freePort } from "../harness/ports.ts";
import type { Prefix } from "../harness/prefix.ts";
import { runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const skip = runtimeUnderTest() === "containerd" ? "about our microVMs" : false;
const hasIpv6 = existsSync("/proc/net/if_inet6");
const node = useNode({ pods: "both", prepare: writeNetworkList });
/** Unlike the 1500 that an interface has by itself. */
const MTU = 1380;
const DATA_MIB = 4;

interface NetworkList {
  readonly plugins: readonly [
    { readonly ipam: { readonly ranges: readonly unknown[]; readonly routes: readonly unknown[] } },
    ...unknown[],
  ];
}

/** A network with an MTU of its own and, where the host can, with IPv6. */
async function writeNetworkList({ prefix }: Node): Promise<void> {
  const path = join(prefix.cniConfDir, "10-e2e.conflist");
  const list = JSON.parse(await readFile(path, "utf8")) as NetworkList;
  const [bridge, ...others] = list.plugins;
  const { ipam } = bridge;
  const ranges = hasIpv6 ? [...ipam.ranges, [{ subnet: `${ipv6Prefix(prefix)}::/64` }]] : ipam.ranges;
  const routes = hasIpv6 ? [...ipam.routes, { dst: "::/0" }] : ipam.routes;
  await writeFile(path, JSON.stringify({ ...list, plugins: [{ ...bridge, mtu: MTU, ipam: { ...ipam, ranges, routes } }, ...others] }));
}

function ipv6Prefix({ network }: Prefix): string {
  return `fd00:${network.prefix.replaceAll(".", ":")}`;
}

/** The pod's addresses, IPv4 first, as a URL has them. */
async function addressesOf(pod: Pod): Promise<string[]> {
  const { network } = await pod.status();
  const all = [network?.ip ?? "", ...(network?.additionalIps ?? []).map(({ ip }) => ip)];
  assert.equal(all.length, hasIpv6 ? 2 : 1, `addresses ${all.join(", ")}`);
  return all.map((address) => (address.includes(":") ? `[${address}]` : address));
}

/** A container that serves some random MiB as `/data`, and their sum. */
async function startServer(pod: Pod, port = 80): Promise<{ readonly container: Container; readonly sha256: string }> {
  const make = `mkdir /tmp/www && dd if=/dev/urandom of=/tmp/www/data bs=65536 count=${DATA_MIB * 16} 2>/dev/null`;
  const container = await pod.start({ command: ["/bin/sh", "-c", `${make} && exec httpd -f -p ${port} -h /tmp/www`] });
  await waitFor("the web server", () => container.shell(`wget -q -O /dev/null http://127.0.0.1:${port}/data && echo served`));
  return { container, sha256: await container.shell("sha256sum < /tmp/www/data | cut -d' ' -f1") };
}

async function sumFromHost(url: string): Promise<string> {
  const response = await fetch(url, { signal: AbortSignal.timeout(10_000), headers: { connection: "close" } });
  const bytes = Buffer.from(await response.arrayBuffer());
  assert.equal(bytes.length, DATA_MIB * 2 ** 20);
  return sumOf(bytes);
}

async function sumFromPod(container: Container, url: string): Promise<string> {
  return await container.shell(`wget -q -O - '${url}' | sha256sum | cut -d' ' -f1`);
}

function sumOf(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** What BusyBox' ip says of eth0, less what the kernel makes by itself and its counters. */
function describeInterface(text: string): Readonly<Record<string, readonly string[]>> {
  const all = (pattern: RegExp) => [...text.matchAll(pattern)].map((match) => match.slice(1).join(" ")).toSorted();
  return {
    mtu: all(/ mtu (\d+) /g),
    mac: all(/link\/ether (\S+)/g),
    addresses: all(/inet6? (\S+) (?:brd \S+ )?scope global/g),
    routes: all(/^((?:default|\d|fd).* dev eth0.*?) *$/gm).map((route) =>
      route.replace(/ (?:proto \S+|src \S+|metric \d+|hoplimit \d+|pref \S+)/g, ""),
    ),
  };
}

const showInterface = "ip addr show dev eth0; ip -4 route; ip -6 route";

test("the guest's interface is the one that CNI made: MAC, MTU, addresses, routes; and DNS is the pod's", { skip }, async () => {
  const dnsConfig = { servers: ["10.10.10.10"], searches: ["a.example"], options: ["ndots:3"] };
  await using pod = await node().runPod({ runtimeHandler: "aurae-vm", dnsConfig });
  const container = await pod.start();
  const { qemuPid } = await machineOf(node().prefix, pod.id);
  const made = describeInterface(await mustRun("nsenter", ["-t", String(qemuPid), "-n", "busybox", "sh", "-c", showInterface]));
  const inside = describeInterface(await container.shell(showInterface));
  assert.deepEqual(inside, made);
  assert.deepEqual(inside["mtu"], [String(MTU)]);
  assert.equal(inside["mac"]?.length, 1);
  const addresses = (await addressesOf(pod)).map((address) => address.replaceAll(/[[\]]/g, ""));
  assert.deepEqual(inside["addresses"]?.map((address) => address.replace(/\/\d+$/, "")).toSorted(), addresses.toSorted());
  assert.ok(inside["routes"]?.includes(`default via ${node().prefix.network.prefix}.1 dev eth0`), JSON.stringify(inside));
  assert.equal(await container.shell("cat /etc/resolv.conf"), "search a.example\nnameserver 10.10.10.10\noptions ndots:3");
});

test("megabytes between the host, a microVM and a flat pod, in every direction and family", { skip }, async (t) => {
  if (!hasIpv6) t.diagnostic("this host has no IPv6: IPv4 alone");
  await using vmPod = await node().runPod({ runtimeHandler: "aurae-vm" });
  await using otherVmPod = await node().runPod({ runtimeHandler: "aurae-vm" });
  await using flatPod = await node().runPod({ runtimeHandler: "aurae-flat" });
  const vm = await startServer(vmPod);
  const flat = await startServer(flatPod);
  const other = await otherVmPod.start();
  for (const address of await addressesOf(vmPod)) {
    assert.equal(await sumFromHost(`http://${address}/data`), vm.sha256, `from the host to ${address}`);
    assert.equal(await sumFromPod(flat.container, `http://${address}/data`), vm.sha256, `from the flat pod to ${address}`);
    assert.equal(await sumFromPod(other, `http://${address}/data`), vm.sha256, `from another microVM to ${address}`);
  }
  for (const address of await addressesOf(flatPod))
    assert.equal(await sumFromPod(vm.container, `http://${address}/data`), flat.sha256, `from the microVM to ${address}`);
});

test("a microVM reaches the bridge's address on the host", { skip }, async () => {
  await using pod = await node().runPod({ runtimeHandler: "aurae-vm" });
  const container = await pod.start();
  const data = randomBytes(DATA_MIB * 2 ** 20);
  for (const address of [`${node().prefix.network.prefix}.1`, ...(hasIpv6 ? [`${ipv6Prefix(node().prefix)}::1`] : [])]) {
    const port = await freePort();
    const server = createServer((_request, response) => response.end(data)).listen(port, address);
    await once(server, "listening");
    try {
      const host = address.includes(":") ? `[${address}]` : address;
      assert.equal(await sumFromPod(container, `http://${host}:${port}/data`), sumOf(data), address);
    } finally {
      server.close();
    }
  }
});

test("a hostPort leads into a microVM, and ends with it", { skip }, async () => {
  const hostPort = await freePort();
  await using pod = await node().runPod({ runtimeHandler: "aurae-vm", portMappings: [{ containerPort: 8080, hostPort }] });
  const { sha256 } = await startServer(pod, 8080);
  assert.equal(await sumFromHost(`http://127.0.0.1:${hostPort}/data`), sha256);
  assert.equal(await sumFromHost(`http://${node().prefix.network.prefix}.1:${hostPort}/data`), sha256);
  await pod.stop();
  await assert.rejects(sumFromHost(`http://127.0.0.1:${hostPort}/data`));
});
