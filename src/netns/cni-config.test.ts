import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { loadNetworkConfig, parseNetworkConfig } from "./cni-config.ts";
import { convertResult, parseResult, podIps } from "./cni-result.ts";
import { atLeast, negotiate } from "./cni-version.ts";
import { NetnsError } from "./errors.ts";

const list = JSON.stringify({ cniVersion: "1.0.0", name: "net", plugins: [{ type: "bridge", bridge: "b0" }] });
const single = JSON.stringify({ cniVersion: "0.4.0", name: "one", type: "bridge", bridge: "b0", capabilities: { portMappings: true } });

interface DirectoryCase {
  readonly title: string;
  readonly files: Readonly<Record<string, string>>;
  /** Name of the network, or what the error says. */
  readonly expected: string | RegExp;
}

const directories: readonly DirectoryCase[] = [
  { title: "the first by name", files: { "20-b.conflist": list, "10-a.conf": single }, expected: "one" },
  {
    title: "a list over a single one of a later name",
    files: { "10-a.conflist": list, "10-a.conf": single, "z.json": single },
    expected: "one",
  },
  { title: "a list in a .json", files: { "a.json": list }, expected: "net" },
  {
    title: "no hidden, other or nested files",
    files: { ".10.conf": "x", "README.md": "x", "05.conf/x": "x", "a.conflist": list },
    expected: "net",
  },
  { title: "an empty directory", files: {}, expected: /^DIR: no CNI configuration \(looked for \*\.conf, .*; it is empty\)$/ },
  { title: "a directory of other files", files: { "a.conf.bak": list }, expected: /it holds only a\.conf\.bak\)$/ },
  {
    title: "broken JSON, though a good file follows",
    files: { "1.conf": "{", "2.conflist": list },
    expected: /^DIR\/1\.conf: is not JSON: /,
  },
  { title: "a file that is being written", files: { "1.conf": "" }, expected: /^DIR\/1\.conf: is empty$/ },
];
for (const { title, files, expected } of directories) {
  test(`configuration directory: ${title}`, async () => {
    const directory = await mkdtemp(join(tmpdir(), "aurae-conf-"));
    await using stack = new AsyncDisposableStack();
    stack.defer(() => rm(directory, { recursive: true }));
    for (const [name, text] of Object.entries(files)) {
      await mkdir(join(directory, name, ".."), { recursive: true });
      await writeFile(join(directory, name), text);
    }
    const loading = loadNetworkConfig(directory);
    if (typeof expected === "string") return assert.equal((await loading).name, expected);
    await assert.rejects(loading, (error) => {
      assert.ok(error instanceof NetnsError && error.fact.code === "ERR_CNI_CONFIG");
      assert.match(error.message.replaceAll(directory, "DIR"), expected);
      return true;
    });
  });
}

test("what is not JSON is not quoted: it may hold a secret", () => {
  for (const text of ['{"token":"hush",x}', '{"token":hush}', `{"token":"hush${"-".repeat(500)}",`, 'hush {"a":1}']) {
    assert.throws(
      () => parseNetworkConfig("/x/1.conf", text),
      (error) => error instanceof NetnsError && /is not JSON: \w/.test(error.message) && !/hush/.test(error.message + String(error.cause)),
      text,
    );
  }
});

test("a missing directory is named", async () => {
  await assert.rejects(loadNetworkConfig("/no/net.d"), /\/no\/net\.d: no CNI configuration: the directory cannot be read/);
});

test("a single configuration is a list of one, without the list's keys", () => {
  const config = parseNetworkConfig("/x/10.conf", single);
  assert.deepEqual(config.plugins, [{ type: "bridge", bridge: "b0", capabilities: { portMappings: true } }]);
  assert.deepEqual([config.name, config.cniVersions, config.disableCheck], ["one", ["0.4.0"], false]);
});

test("what the file offers is kept as far as we speak it; flags may be words", () => {
  const text = { cniVersion: "0.2.0", cniVersions: ["1.1.0", "0.4.0", "9.0.0"], name: "n", disableGC: "true", plugins: [{ type: "a" }] };
  const config = parseNetworkConfig("/x/1.conflist", JSON.stringify(text));
  assert.deepEqual([config.cniVersions, config.disableGc], [["0.4.0", "1.1.0"], true]);
});

const faults: readonly (readonly [unknown, RegExp])[] = [
  [[], /the document: .*expected object/],
  [{ name: "n", plugins: [{ type: "a" }] }, /cniVersion is missing: set one of 0\.3\.0/],
  [{ cniVersion: "2.0.0", name: "n", plugins: [{ type: "a" }] }, /cniVersion is 2\.0\.0/],
  [{ cniVersion: "1.0.0", plugins: [{ type: "a" }] }, /name: /],
  [{ cniVersion: "1.0.0", name: "../n", plugins: [{ type: "a" }] }, /name: must begin/],
  [{ cniVersion: "1.0.0", name: "n", plugins: [] }, /plugins: must name at least one/],
  [{ cniVersion: "1.0.0", name: "n" }, /plugins: /],
  [{ cniVersion: "1.0.0", name: "n", plugins: [{ type: "a" }, { type: "../../bin/sh" }] }, /plugins\.1\.type: must be the file name/],
  [
    { cniVersion: "1.0.0", name: "n", plugins: [{ type: "a", capabilities: { portMappings: "yes" } }] },
    /plugins\.0\.capabilities\.portMappings: /,
  ],
];
for (const [document, message] of faults) {
  test(`a fault is named by file and field: ${message.source}`, () => {
    assert.throws(
      () => parseNetworkConfig("/x/1.conflist", JSON.stringify(document)),
      (error) => error instanceof NetnsError && error.message.startsWith("/x/1.conflist: ") && message.test(error.message),
    );
  });
}

test("the newest version that all speak", () => {
  assert.equal(negotiate(["0.4.0", "1.0.0", "1.1.0"], [["0.4.0", "1.0.0"], undefined]), "1.0.0");
  assert.equal(negotiate(["1.1.0"], [["1.0.0"]]), undefined);
  assert.deepEqual([atLeast("1.0.0", "1.0.0"), atLeast("0.10.0", "0.4.0"), atLeast("0.4.0", "1.0.0")], [true, true, false]);
});

const interfaces = [
  { name: "br0" },
  { name: "eth0", sandbox: "/run/netns/x" },
  { name: "eth0" },
  { name: "net1", sandbox: "/run/netns/x" },
];

test("the pod's addresses are those of eth0 inside, in the plugin's order", () => {
  const ips = [
    { address: "fd00::2/64", interface: 1 },
    { address: "10.0.0.1/24", interface: 0 },
    { address: "10.0.0.2/24", interface: 1 },
    { address: "10.0.0.3/24", interface: 2 },
    { address: "10.0.0.4/24", interface: 3 },
    { address: "10.0.0.5/32" },
  ];
  assert.deepEqual(podIps({ interfaces, ips }, "eth0"), ["fd00::2", "10.0.0.2", "10.0.0.5"]);
  assert.deepEqual(podIps({ ips: [{ address: "10.0.0.9/32", interface: null }] }, "eth0"), ["10.0.0.9"]);
  assert.throws(() => podIps({ interfaces, ips: [] }, "eth0"), /no address for eth0/);
  assert.throws(() => podIps({ interfaces: null, ips: null }, "eth0"), /no address for eth0/);
  assert.throws(
    () => podIps({ interfaces, ips: [{ address: "10.0.0.1/24", interface: 9 }] }, "eth0"),
    /interface 9, which is not in the list/,
  );
});

test("a result is brought to the list's version, the rest of it carried along", () => {
  const old = { cniVersion: "0.4.0", dns: {}, ips: [{ version: "4", address: "10.0.0.2/24", gateway: "10.0.0.1", interface: 1 }] };
  const now = { cniVersion: "1.0.0", dns: {}, ips: [{ address: "10.0.0.2/24", gateway: "10.0.0.1", interface: 1 }] };
  assert.deepEqual(convertResult(old, "1.0.0"), now);
  assert.deepEqual(convertResult(now, "0.4.0"), old);
  assert.deepEqual(convertResult({ ips: [{ address: "fd00::2/64" }] }, "0.3.1"), {
    cniVersion: "0.3.1",
    ips: [{ version: "6", address: "fd00::2/64" }],
  });
  assert.deepEqual(parseResult({}, "1.0.0"), { cniVersion: "1.0.0" });
});
