import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { silentLog } from "../lib/log.ts";
import { NetnsError } from "./errors.ts";
import { openNetwork } from "./network.ts";
import { createTestBed, removeNatRules, requestFor, sh, type TestBed } from "./test-bed.ts";

// The real plugins, in the host's own network namespace, on a bridge and a subnet of the test's own.

const signal = new AbortController().signal;

interface RealBed extends TestBed {
  readonly bridge: string;
  readonly leaseDir: string;
  /** Pod ids that host-local holds an address for. */
  holders(): Promise<readonly string[]>;
}

async function createRealBed(more: { readonly cniVersion?: string } = {}): Promise<RealBed> {
  const bed = await createTestBed();
  const bridge = `au${bed.tag}`;
  bed.defer(() => removeNatRules(bridge));
  bed.defer(() => sh("ip", "link", "del", bridge).catch(() => ""));
  const third = Number.parseInt(bed.tag.slice(0, 2), 16);
  const dataDir = join(bed.directory, "leases");
  const leaseDir = join(dataDir, bridge);
  const ranges = [[{ subnet: `10.231.${third}.0/24` }], [{ subnet: `fd5a:${bed.tag.slice(0, 4)}::/64` }]];
  await bed.writeConfig("10-pods.conflist", {
    cniVersion: more.cniVersion ?? "1.0.0",
    name: bridge,
    plugins: [
      {
        type: "bridge",
        bridge,
        isGateway: true,
        ipMasq: true,
        hairpinMode: true,
        ipam: { type: "host-local", dataDir, ranges, routes: [{ dst: "0.0.0.0/0" }] },
      },
      { type: "portmap", capabilities: { portMappings: true }, snat: true },
    ],
  });
  return {
    ...bed,
    bridge,
    leaseDir,
    async holders() {
      const names = await readdir(leaseDir);
      const leases = names.filter((name) => /^[0-9a-f.:]+$/.test(name) && name !== "lock");
      const contents = await Promise.all(leases.map((name) => readFile(join(leaseDir, name), "utf8")));
      return [...new Set(contents.map((text) => text.split(/\s/)[0] ?? ""))].sort();
    },
  };
}

/** Serves `answer` on a TCP port inside a namespace until disposed. */
async function serveIn(netns: string, port: number, answer: string): Promise<AsyncDisposable> {
  const script = `require("node:net").createServer((s) => s.end(${JSON.stringify(answer)})).listen(${port}, "::", () => console.log("up"))`;
  const child = spawn("ip", ["netns", "exec", netns.replace("/run/netns/", ""), process.execPath, "--eval", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  await once(child.stdout, "data");
  return {
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await exited;
    },
  };
}

async function ask(host: string, port: number): Promise<string> {
  const socket = connect({ host, port, timeout: 3_000 });
  socket.on("timeout", () => socket.destroy(new Error(`no answer from ${host}:${port}`)));
  let text = "";
  for await (const chunk of socket.setEncoding("utf8")) text += String(chunk);
  return text;
}

async function askFrom(netns: string, host: string, port: number): Promise<string> {
  const script = `require("node:net").connect(${port}, ${JSON.stringify(host)}).on("error", (e) => { console.error(e.message); process.exit(1) }).pipe(process.stdout)`;
  return await sh("ip", "netns", "exec", netns.replace("/run/netns/", ""), process.execPath, "--eval", script);
}

test("two pods reach each other, the host reaches them by address and by host port, and all of it goes", async () => {
  await using bed = await createRealBed();
  await using network = await openNetwork(bed.options, { log: silentLog });
  assert.deepEqual(network.status(), { ready: true, networkName: bed.bridge, confFile: join(bed.options.confDir, "10-pods.conflist") });
  const hostPort = 20_000 + (Number.parseInt(bed.tag.slice(2), 16) % 10_000);
  const [netnsA, netnsB] = [await bed.addNamespace("a"), await bed.addNamespace("b")];
  const [podA, podB] = [`${bed.tag}a`, `${bed.tag}b`];
  const portMappings = [{ protocol: "tcp", containerPort: 8080, hostPort, hostIp: "" }] as const;
  const a = await network.attach(requestFor(podA, netnsA, { portMappings }), { signal });
  const b = await network.attach(requestFor(podB, netnsB), { signal });
  const [ipA, ipA6] = a.ips;
  assert.ok(ipA !== undefined && ipA6 !== undefined);
  assert.match(ipA, /^10\.231\./);
  assert.match(ipA6, /^fd5a:/);
  assert.equal(b.ips.length, 2);
  {
    await using servers = new AsyncDisposableStack();
    servers.use(await serveIn(netnsA, 8080, "from a"));
    assert.equal(await askFrom(netnsB, ipA, 8080), "from a");
    assert.equal(await ask(ipA, 8080), "from a");
    assert.equal(await ask("127.0.0.1", hostPort), "from a");
    assert.equal(await askFrom(netnsB, ipA.replace(/\d+$/, "1"), hostPort), "from a");
  }
  // Of the pod without host ports: portmap 1.1 cannot check them on a network of both families.
  await network.check(podB, { signal });
  assert.deepEqual(await bed.holders(), [podA, podB]);
  await network.detach(podA, { signal });
  await network.detach(podB, { signal });
  assert.deepEqual(await bed.holders(), []);
  assert.doesNotMatch(await sh("iptables-save", "-t", "nat"), new RegExp(`${hostPort}|${podA}|${podB}`));
  assert.equal((await sh("ip", "-o", "link", "show", "master", bed.bridge)).trim(), "");
});

test("DEL with a vanished namespace frees the address", async () => {
  await using bed = await createRealBed();
  await using network = await openNetwork(bed.options, { log: silentLog });
  const podId = `${bed.tag}a`;
  await network.attach(requestFor(podId, await bed.addNamespace("a")), { signal });
  assert.deepEqual(await bed.holders(), [podId]);
  await bed.removeNamespace("a");
  await network.detach(podId, { signal });
  assert.deepEqual(await bed.holders(), []);
  await network.detach(podId, { signal });
});

test("killed between ADD and its result: DEL frees the address", async () => {
  await using bed = await createRealBed();
  const podId = `${bed.tag}a`;
  const netns = await bed.addNamespace("a");
  const script = `
    import { armFailpoints } from ${JSON.stringify(new URL("../lib/failpoint.ts", import.meta.url).href)};
    import { silentLog } from ${JSON.stringify(new URL("../lib/log.ts", import.meta.url).href)};
    import { openNetwork } from ${JSON.stringify(new URL("network.ts", import.meta.url).href)};
    const network = await openNetwork(${JSON.stringify(bed.options)}, { log: silentLog });
    armFailpoints("netns.add.after=kill");
    await network.attach(${JSON.stringify(requestFor(podId, netns))}, { signal: new AbortController().signal });`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", script], { stdio: "inherit" });
  const [, killedBy] = await once(child, "exit");
  assert.equal(killedBy, "SIGKILL");
  assert.deepEqual(await bed.holders(), [podId]);
  await using network = await openNetwork(bed.options, { log: silentLog });
  assert.deepEqual(await network.attached(), [podId]);
  await network.detach(podId, { signal });
  assert.deepEqual(await bed.holders(), []);
});

test("a failed ADD gives back what the first plugin took", async () => {
  await using bed = await createRealBed();
  await using network = await openNetwork(bed.options, { log: silentLog });
  const podId = `${bed.tag}a`;
  const netns = await bed.addNamespace("a");
  // bridge succeeds, then portmap refuses the protocol.
  const portMappings = [{ protocol: "ddp" as "tcp", containerPort: 80, hostPort: 8080, hostIp: "" }];
  await assert.rejects(network.attach(requestFor(podId, netns, { portMappings }), { signal }), (error) => {
    assert.ok(error instanceof NetnsError);
    assert.match(error.message, /^CNI plugin portmap \(ADD\): /);
    return true;
  });
  assert.deepEqual(await bed.holders(), []);
  assert.deepEqual(await network.attached(), []);
});

test("ten pods at once get ten addresses, with each version of the spec", async () => {
  for (const cniVersion of ["0.3.1", "0.4.0", "1.0.0"]) {
    await using bed = await createRealBed({ cniVersion });
    await using network = await openNetwork(bed.options, { log: silentLog });
    const pods = Array.from({ length: 10 }, (_, index) => `${bed.tag}p${index}`);
    const results = await Promise.all(
      pods.map(async (podId) => network.attach(requestFor(podId, await bed.addNamespace(podId)), { signal })),
    );
    assert.equal(new Set(results.flatMap(({ ips }) => ips)).size, 20);
    await Promise.all(pods.map((podId) => network.detach(podId, { signal })));
    assert.deepEqual(await bed.holders(), []);
  }
});
