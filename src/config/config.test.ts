import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mkdir, mkdtempDisposable, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { Config } from "./config.ts";
import { ConfigError, type Problem } from "./errors.ts";
import { loadConfig } from "./load.ts";
import { readToml } from "./read.ts";
import { renderReference } from "./reference.ts";
import { renderConfig, renderDefault } from "./render.ts";
import { resolveConfig } from "./resolve.ts";

function resolve(text: string): Config {
  return resolveConfig([readToml(text, "c.toml")], { programDir: "/nowhere" });
}

function problemsOf(run: () => unknown): readonly Problem[] {
  try {
    run();
  } catch (error) {
    if (error instanceof ConfigError && error.fact.code === "ERR_CONFIG") return error.fact.problems;
    throw error;
  }
  assert.fail("no problem found");
}

test("an empty file gives every default", () => {
  const config = resolve("");
  assert.equal(config.root, "/var/lib/aurae-cri");
  assert.equal(config.state, "/run/aurae-cri");
  assert.equal(config.listen, "/run/aurae/aurae-cri.sock");
  assert.deepEqual(config.cni, { confDir: "/etc/cni/net.d", binDirs: ["/opt/cni/bin", "/usr/lib/cni"] });
  assert.deepEqual(config.image, { maxConcurrentDownloads: 3, noProgressTimeoutMs: 300_000, pinned: [] });
  assert.deepEqual(config.oci, { runtime: "", bundleDir: "/var/run/aurae/bundles" });
  assert.equal(config.auraed.path, "/usr/lib/aurae-cri/auraed");
  assert.equal(config.vm.guestDir, "/usr/lib/aurae-cri/guest");
});

test("dotted, quoted and inline ways of writing a key are the same", () => {
  for (const text of [
    '[vm]\ndefault_memory = "2GiB"\ndefault_vcpus = 4',
    'vm.default_memory = "2GiB"\n"vm".default_vcpus = 4',
    'vm = { default_memory = "2GiB", default_vcpus = 4 }',
  ]) {
    const { defaultMemoryBytes, defaultVcpus } = resolve(text).vm;
    assert.deepEqual({ defaultMemoryBytes, defaultVcpus }, { defaultMemoryBytes: 2 ** 31, defaultVcpus: 4 }, text);
  }
  assert.equal(resolve('root = "/data//x/"').root, "/data/x");
});

test("one problem each: where it is, what was wrong, the nearest key", () => {
  for (const [text, where, message] of [
    ["root = 1", "c.toml:1:8", /^root: want absolute path, not 1$/],
    ['\nlisten = "/run/x.sock"', "c.toml:2:10", /^listen: want unix:\/\/\/ABSOLUTE\/PATH/],
    [`listen = "unix:///${"x".repeat(120)}"`, "c.toml:1:10", /at most 107 bytes/],
    ['[cni]\nconfdir = "/x"', "c.toml:2:1", /^unknown key 'cni\.confdir' \(did you mean 'cni\.conf_dir'\?\)$/],
    ['conf_dir = "/x"', "c.toml:1:1", /did you mean 'cni\.conf_dir'/],
    ['[cin]\nconf_dir = "/x"\nbin_dirs = []', "c.toml:1:2", /^unknown table 'cin' \(did you mean 'cni'\?\)$/],
    ["wholly_different = 1", "c.toml:1:1", /^unknown key 'wholly_different'$/],
    ['cni = "x"', "c.toml:1:1", /^'cni' is a table: write \[cni\]/],
    ["[root]", "c.toml:1:2", /^'root' is a key, not a table$/],
    ["[[cni]]", "c.toml:1:3", /list of tables/],
    ["[cni]\nbin_dirs = []", "c.toml:2:12", /want list, not empty; each: absolute path/],
    ['[cni]\nbin_dirs = ["/x", 1]', "c.toml:2:12", /want list/],
    ["[image]\nmax_concurrent_downloads = 0", "c.toml:2:28", /want integer, 1 or more, not 0/],
    ["[image]\nmax_concurrent_downloads = 1.5", "c.toml:2:28", /want integer/],
    ['[image]\nno_progress_timeout = "5 minutes"', "c.toml:2:23", /want duration, such as "90s"/],
    ['[vm]\naccelerator = "hvf"', "c.toml:2:15", /want "auto" \| "kvm" \| "tcg" \| "off", not "hvf"/],
    ["[vm]\ndefault_memory = 512", "c.toml:2:18", /want size, such as "512MiB"/],
    ['[vm]\ndefault_memory = "0B"', "c.toml:2:18", /want size/],
    ['[streaming]\naddress = "localhost"', "c.toml:2:11", /want loopback IP address/],
    ['[streaming]\naddress = "0.0.0.0"', "c.toml:2:11", /want loopback IP address, such as "127\.0\.0\.1" or "::1", not "0\.0\.0\.0"/],
    ['[streaming]\ntls_cert_file = "/c"', "c.toml:2:17", /^streaming\.tls_cert_file: is nothing without streaming\.tls_key_file/],
    ['[streaming]\ntls_key_file = "/k"', "c.toml:2:16", /^streaming\.tls_key_file: is nothing without streaming\.tls_cert_file/],
    ['[metrics]\naddress = "localhost"', "c.toml:2:11", /want IP address/],
    ["root = 2020-01-01", "c.toml:1:8", /^root: want absolute path$/],
    ['root = "/a"\nroot = "/b"', "c.toml:2:1", /not TOML: .*multiple times/],
    ["root = ", "c.toml:1:", /^not TOML/],
    ['[placement]\ndefault = "require-vm"\n[vm]\naccelerator = "off"', "c.toml:2:11", /no pod would start/],
    ['root = "/a"\nstate = "/a"', "c.toml:2:9", /^state: the same directory as root/],
  ] as const) {
    const problems = problemsOf(() => resolve(text));
    assert.equal(problems.length, 1, `${text}: ${JSON.stringify(problems)}`);
    assert.ok(problems[0]?.where.startsWith(where), `${text}: at ${problems[0]?.where}`);
    assert.match(problems[0]?.message ?? "", message, text);
  }
});

test("all problems of a file come at once", () => {
  const problems = problemsOf(() => resolve('root = 1\nstat = "/x"\n[vm]\naccelerator = "x"\n[nope]\n'));
  assert.deepEqual(problems.map(({ where }) => where).sort(), ["c.toml:1:8", "c.toml:2:1", "c.toml:4:15", "c.toml:5:2"]);
});

test("flags win over the file, and are named when wrong", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "aurae-cri-config-"));
  const file = join(dir.path, "c.toml");
  await writeFile(file, 'root = "/from/file"\nstate = "/file/state"\n');
  const config = loadConfig({ config: file, root: "/from/flag", listen: "unix:///flag.sock" });
  assert.deepEqual([config.root, config.state, config.listen], ["/from/flag", "/file/state", "/flag.sock"]);
  const [problem] = problemsOf(() => loadConfig({ config: file, listen: "tcp://x" }));
  assert.equal(problem?.where, "--listen");
  assert.throws(() => loadConfig({ config: join(dir.path, "none") }), /cannot read the configuration.*none/);
});

test("auraed and the guest are taken from beside the program when they were built there", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "aurae-cri-config-"));
  await mkdir(join(dir.path, "build"));
  await writeFile(join(dir.path, "build", "auraed"), "");
  await mkdir(join(dir.path, "build", "guest"));
  const { auraed, vm } = resolveConfig([], { programDir: dir.path });
  assert.equal(auraed.path, join(dir.path, "build", "auraed"));
  assert.equal(vm.guestDir, join(dir.path, "build", "guest"));
});

test("what is printed reads back as what was printed from", () => {
  assert.deepEqual(resolve(renderDefault()), resolve(""));
  const changed = resolve('[image]\npinned = ["a\\"b", "c,d"]\nno_progress_timeout = "1h30m"\n[vm]\ndefault_memory = "1536MiB"\n');
  assert.deepEqual(resolve(renderConfig(changed)), changed);
});

test("docs/configuration.md is what tools/config-reference.ts writes", () => {
  const page = readFileSync(new URL("../../docs/configuration.md", import.meta.url), "utf8");
  assert.equal(page, renderReference(), "run: node_modules/.bin/node tools/config-reference.ts");
});
