import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { silentLog } from "../lib/log.ts";
import { NetnsError, type NetnsFact } from "./errors.ts";
import { openNetwork } from "./network.ts";
import { createFakePlugins, createTestBed, type FakePlugins, requestFor, type TestBed } from "./test-bed.ts";

const signal = new AbortController().signal;
const chain = {
  cniVersion: "1.0.0",
  name: "testnet",
  plugins: [{ type: "first" }, { type: "second", capabilities: { portMappings: true } }],
};

interface FakeBed extends TestBed {
  readonly fakes: FakePlugins;
}

async function createFakeBed(): Promise<FakeBed> {
  const bed = await createTestBed();
  const fakes = await createFakePlugins(bed.directory, ["first", "second"]);
  await bed.writeConfig("10-test.conflist", chain);
  return { ...bed, fakes, options: { ...bed.options, binDirs: [fakes.binDir] } };
}

function failsWith(code: NetnsFact["code"], message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof NetnsError, String(error));
    assert.equal(error.fact.code, code, error.message);
    assert.match(error.message, message);
    return true;
  };
}

test("ADD runs the chain in order, DEL in reverse, each with what the spec demands", async () => {
  await using bed = await createFakeBed();
  const { fakes } = bed;
  await using network = await openNetwork(bed.options, { log: silentLog });
  const netns = await bed.addNamespace("a");
  const portMappings = [
    { protocol: "tcp", containerPort: 80, hostPort: 8080, hostIp: "" },
    { protocol: "udp", containerPort: 53, hostPort: 0, hostIp: "" },
  ] as const;
  const attached = await network.attach(requestFor("pod1", netns, { portMappings }), { signal });
  assert.deepEqual(attached.ips, ["192.0.2.7", "2001:db8::7"]);
  assert.deepEqual(await network.attached(), ["pod1"]);
  await network.check("pod1", { signal });
  await network.detach("pod1", { signal });
  assert.deepEqual(await network.attached(), []);

  const calls = await fakes.calls();
  assert.deepEqual(await fakes.sequence(), ["ADD first", "ADD second", "CHECK first", "CHECK second", "DEL second", "DEL first"]);
  for (const call of calls) {
    assert.equal(call.containerId, "pod1");
    assert.equal(call.netns, netns);
    assert.equal(call.ifname, "eth0");
    assert.equal(call.args, "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=pod1;K8S_POD_UID=uid-1");
    assert.equal(call.config["name"], "testnet");
    assert.equal(call.config["cniVersion"], "1.0.0");
    assert.equal("capabilities" in call.config, false);
    const runtimeConfig = { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: "tcp" }] };
    assert.deepEqual(call.config["runtimeConfig"], call.plugin === "second" ? runtimeConfig : undefined);
    assert.equal("prevResult" in call.config, !(call.command === "ADD" && call.plugin === "first"));
  }
});

test("an ADD that fails is undone through the whole chain and names the plugin, its code and its words", async () => {
  await using bed = await createFakeBed();
  const { fakes } = bed;
  await using network = await openNetwork(bed.options, { log: silentLog });
  const netns = await bed.addNamespace("a");
  await fakes.behave("second", "ADD", `echo '{"cniVersion":"1.0.0","code":11,"msg":"no room","details":"pool is empty"}'; exit 1`);
  const attach = network.attach(requestFor("pod1", netns), { signal });
  await assert.rejects(attach, failsWith("ERR_CNI_PLUGIN", /second \(ADD\): no room; pool is empty \(code 11\)/));
  assert.deepEqual(await fakes.sequence(), ["ADD first", "ADD second", "DEL second", "DEL first"]);
  assert.deepEqual(await readdir(bed.options.stateDir), []);
});

const badAnswers: readonly (readonly [string, NetnsFact["code"], RegExp])[] = [
  ["echo broken >&2; exit 3", "ERR_CNI_EXEC", /first \(ADD\): ended with exit code 3: broken/],
  ["kill -9 $$", "ERR_CNI_EXEC", /ended with SIGKILL/],
  ["echo hello", "ERR_CNI_EXEC", /not JSON: hello/],
  ["true", "ERR_CNI_RESULT", /first \(ADD\) printed none/],
  [`echo '{"ips":[{"address":7}]}'`, "ERR_CNI_RESULT", /ips\.0\.address/],
];
for (const [shell, code, message] of badAnswers) {
  test(`a plugin that does '${shell}' fails the ADD and leaves nothing`, async () => {
    await using bed = await createFakeBed();
    const { fakes } = bed;
    await using network = await openNetwork(bed.options, { log: silentLog });
    const netns = await bed.addNamespace("a");
    await fakes.behave("first", "ADD", shell);
    await assert.rejects(network.attach(requestFor("pod1", netns), { signal }), failsWith(code, message));
    assert.deepEqual(await network.attached(), []);
  });
}

test("a cancelled ADD is killed and undone before the caller hears of it", async () => {
  await using bed = await createFakeBed();
  const { fakes } = bed;
  await using network = await openNetwork(bed.options, { log: silentLog });
  const netns = await bed.addNamespace("a");
  await fakes.behave("first", "ADD", "sleep 60");
  const caller = new AbortController();
  const attach = network.attach(requestFor("pod1", netns), { signal: caller.signal });
  while ((await fakes.sequence()).length === 0) await sleep(5);
  caller.abort(new Error("client went away"));
  await assert.rejects(attach, failsWith("ERR_NETWORK_ABORTED", /client went away/));
  assert.deepEqual(await fakes.sequence(), ["ADD first", "DEL second", "DEL first"]);
  assert.deepEqual(await network.attached(), []);
});

test("a DEL goes on when its caller leaves", async () => {
  await using bed = await createFakeBed();
  const { fakes } = bed;
  await using network = await openNetwork(bed.options, { log: silentLog });
  await network.attach(requestFor("pod1", await bed.addNamespace("a")), { signal });
  await fakes.behave("second", "DEL", "sleep 0.2");
  const caller = new AbortController();
  const detach = network.detach("pod1", { signal: caller.signal });
  caller.abort();
  await assert.rejects(detach, failsWith("ERR_NETWORK_ABORTED", /pod1/));
  await network.detach("pod1", { signal });
  assert.deepEqual(await fakes.sequence(), ["ADD first", "ADD second", "DEL second", "DEL first"]);
});

test("a DEL that fails or is late stays recorded for the next try", async () => {
  await using bed = await createFakeBed();
  const { fakes } = bed;
  await using network = await openNetwork({ ...bed.options, delTimeoutMs: 1000 }, { log: silentLog });
  await network.attach(requestFor("pod1", await bed.addNamespace("a")), { signal });
  await fakes.behave("first", "DEL", "sleep 60");
  await assert.rejects(
    network.detach("pod1", { signal }),
    failsWith("ERR_CNI_EXEC", /first \(DEL\): was stopped: no result within 1000 ms/),
  );
  assert.deepEqual(await network.attached(), ["pod1"]);
  await fakes.behave("first", "DEL", "true");
  await network.detach("pod1", { signal });
  assert.deepEqual(await network.attached(), []);
});

test("an undo that fails is tried again without anybody asking", async () => {
  await using bed = await createFakeBed();
  const { fakes } = bed;
  await using network = await openNetwork(bed.options, { log: silentLog });
  await fakes.behave("second", "ADD", "exit 1");
  await fakes.behave("second", "DEL", 'rm "$d/second.DEL"; exit 1');
  await assert.rejects(
    network.attach(requestFor("pod1", await bed.addNamespace("a")), { signal }),
    failsWith("ERR_CNI_EXEC", /second \(ADD\)/),
  );
  while ((await network.attached()).length > 0) await sleep(5);
  assert.deepEqual(await fakes.sequence(), ["ADD first", "ADD second", "DEL second", "DEL second", "DEL first"]);
});

test("DEL uses the configuration and result of ADD, whatever became of the file and the namespace", async () => {
  await using bed = await createFakeBed();
  const { fakes } = bed;
  const netns = await bed.addNamespace("a");
  {
    await using network = await openNetwork(bed.options, { log: silentLog });
    await network.attach(requestFor("pod1", netns), { signal });
  }
  await bed.removeNamespace("a");
  // As after a reboot: the file is there, the namespace under it is not.
  await writeFile(netns, "");
  bed.defer(() => rm(netns));
  await rm(join(bed.options.confDir, "10-test.conflist"));
  await fakes.forget();
  await using network = await openNetwork(bed.options, { log: silentLog });
  assert.equal(network.status().ready, false);
  await network.detach("pod1", { signal });
  const calls = await fakes.calls();
  assert.deepEqual(await fakes.sequence(), ["DEL second", "DEL first"]);
  assert.deepEqual(
    calls.map((call) => [call.netns, "prevResult" in call.config]),
    [
      ["", true],
      ["", true],
    ],
  );
});

test("a daemon killed around ADD leaves a record, its orphaned plugin is ended, and DEL runs", async () => {
  await using bed = await createFakeBed();
  const { fakes } = bed;
  const netns = await bed.addNamespace("a");
  // The plugin outlives its daemon and would take its address after our DEL.
  await fakes.behave("first", "ADD", 'kill -9 $PPID; sleep 1; echo late >>"$d/late"');
  await attachInChild(bed, netns, "");
  await fakes.forget();
  await using network = await openNetwork(bed.options, { log: silentLog });
  assert.deepEqual(await network.attached(), ["pod1"]);
  await network.detach("pod1", { signal });
  assert.deepEqual(await fakes.sequence(), ["DEL second", "DEL first"]);
  await sleep(1_100);
  await assert.rejects(readFile(join(fakes.binDir, "late")), { code: "ENOENT" });
});

for (const point of ["netns.record.after", "netns.add.before", "netns.add.after", "netns.result.after"]) {
  test(`killed at ${point}: DEL runs and nothing is left`, async () => {
    await using bed = await createFakeBed();
    const { fakes } = bed;
    await attachInChild(bed, await bed.addNamespace("a"), `${point}=kill`);
    await fakes.forget();
    await using network = await openNetwork(bed.options, { log: silentLog });
    assert.deepEqual(await network.attached(), ["pod1"]);
    await network.detach("pod1", { signal });
    assert.deepEqual(await fakes.sequence(), ["DEL second", "DEL first"]);
    assert.deepEqual(await readdir(bed.options.stateDir), []);
  });
}

test("the same attach again answers like the first; another pod does not wait for it", async () => {
  await using bed = await createFakeBed();
  const { fakes } = bed;
  await using network = await openNetwork(bed.options, { log: silentLog });
  const netns = await bed.addNamespace("a");
  await fakes.behave("first", "ADD", '[ "$CNI_CONTAINERID" = pod2 ] || sleep 0.3; cat "$d/result.json"');
  const order: string[] = [];
  await Promise.all([
    network.attach(requestFor("pod1", netns), { signal }).then(() => order.push("pod1")),
    network.attach(requestFor("pod1", netns), { signal }).then(() => order.push("pod1 again")),
    network.attach(requestFor("pod2", netns), { signal }).then(() => order.push("pod2")),
  ]);
  assert.deepEqual(order, ["pod2", "pod1", "pod1 again"]);
  assert.equal((await fakes.sequence()).filter((call) => call === "ADD first").length, 2);
});

test("an unreadable record is put aside once the address is freed", async () => {
  await using bed = await createFakeBed();
  const { fakes } = bed;
  await using network = await openNetwork(bed.options, { log: silentLog });
  await writeFile(join(bed.options.stateDir, "pod1.json"), "{");
  assert.deepEqual(await network.attached(), ["pod1"]);
  await network.detach("pod1", { signal });
  assert.deepEqual(await fakes.sequence(), ["DEL second", "DEL first"]);
  assert.deepEqual(await readdir(bed.options.stateDir), ["pod1.json.damaged"]);
});

const badRequests = [
  [{ podName: "a;K8S_POD_NAME=b" }, /podName/],
  [{ podUid: "x\ny" }, /podUid/],
  [{ podId: "../x" }, /podId/],
  [{ portMappings: [{ protocol: "tcp", containerPort: 0, hostPort: 80, hostIp: "" }] }, /port_mappings\[0\]\.container_port/],
  [{ portMappings: [{ protocol: "tcp", containerPort: 80, hostPort: 80, hostIp: "localhost" }] }, /port_mappings\[0\]\.host_ip/],
  [{ netnsPath: "/proc/self/cmdline" }, /netnsPath/],
] as const;
test("a bad request names its field and runs nothing", async () => {
  await using bed = await createFakeBed();
  const { fakes } = bed;
  await using network = await openNetwork(bed.options, { log: silentLog });
  const netns = await bed.addNamespace("a");
  for (const [more, message] of badRequests) {
    await assert.rejects(network.attach(requestFor("pod1", netns, more), { signal }), failsWith("ERR_NETWORK_REQUEST", message));
  }
  await network.detach("never-attached", { signal });
  assert.deepEqual(await fakes.sequence(), []);
});

test("closing cancels what attaches and leaves nothing of it, and refuses what comes", async () => {
  await using bed = await createFakeBed();
  const { fakes } = bed;
  const network = await openNetwork(bed.options, { log: silentLog });
  await fakes.behave("second", "ADD", "sleep 60");
  const attach = network.attach(requestFor("pod1", await bed.addNamespace("a")), { signal });
  const failed = assert.rejects(attach, failsWith("ERR_NETWORK_ABORTED", /the network room is closing/));
  while ((await fakes.sequence()).length < 2) await sleep(5);
  await network[Symbol.asyncDispose]();
  await failed;
  assert.deepEqual(await fakes.sequence(), ["ADD first", "ADD second", "DEL second", "DEL first"]);
  assert.deepEqual(await readdir(bed.options.stateDir), []);
  await assert.rejects(network.detach("pod1", { signal }), failsWith("ERR_NETWORK_CLOSED", /closing/));
});

test("GC names the attachments that are ours, with a network that knows it", async () => {
  await using bed = await createFakeBed();
  const { fakes } = bed;
  await bed.writeConfig("10-test.conflist", { ...chain, cniVersion: "1.1.0" });
  await using network = await openNetwork(bed.options, { log: silentLog });
  await network.attach(requestFor("pod1", await bed.addNamespace("a")), { signal });
  await network.collectGarbage({ signal });
  const garbage = (await fakes.calls()).filter(({ command }) => command === "GC");
  assert.deepEqual(
    garbage.map(({ plugin }) => plugin),
    ["first", "second"],
  );
  assert.deepEqual(garbage[0]?.config["cni.dev/valid-attachments"], [{ containerID: "pod1", ifname: "eth0" }]);
});

/** Attaches pod1 in a process of its own that ends by SIGKILL: by a failpoint, or by the plugin. */
async function attachInChild(bed: TestBed, netns: string, failpoints: string): Promise<void> {
  const script = `
    import { armFailpoints } from ${JSON.stringify(new URL("../lib/failpoint.ts", import.meta.url).href)};
    import { silentLog } from ${JSON.stringify(new URL("../lib/log.ts", import.meta.url).href)};
    import { openNetwork } from ${JSON.stringify(new URL("network.ts", import.meta.url).href)};
    const network = await openNetwork(${JSON.stringify(bed.options)}, { log: silentLog });
    armFailpoints(${JSON.stringify(failpoints)});
    await network.attach(${JSON.stringify(requestFor("pod1", netns))}, { signal: new AbortController().signal });`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", script], { stdio: "inherit" });
  const [, killedBy] = await once(child, "exit");
  assert.equal(killedBy, "SIGKILL");
}
