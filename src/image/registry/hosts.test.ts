import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { ImageError } from "../errors.ts";
import { parseChallenges } from "./auth.ts";
import { endpointsOf } from "./hosts.ts";

describe("endpointsOf", () => {
  let dir = "";
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "aurae-cri-hosts-"));
  });
  afterEach(() => rm(dir, { recursive: true }));

  async function configure(host: string, toml: string): Promise<void> {
    await mkdir(join(dir, host), { recursive: true });
    await writeFile(join(dir, host, "hosts.toml"), toml);
  }
  const bases = async (domain: string) => (await endpointsOf(domain, dir)).map((endpoint) => endpoint.base);

  it("without configuration asks the registry, in plain text on loopback only", async () => {
    assert.deepEqual(await bases("docker.io"), ["https://registry-1.docker.io/v2"]);
    assert.deepEqual(await bases("quay.io"), ["https://quay.io/v2"]);
    assert.deepEqual(await bases("127.0.0.1:5000"), ["http://127.0.0.1:5000/v2"]);
    assert.deepEqual(await bases("localhost:5000"), ["http://localhost:5000/v2"]);
    assert.deepEqual(await bases("[::1]:5000"), ["http://[::1]:5000/v2"]);
    assert.deepEqual((await endpointsOf("quay.io", "")).length, 1);
  });

  it("asks mirrors in their order, the server last", async () => {
    await configure(
      "registry.k8s.io",
      `server = "https://upstream.example"
[host."https://z.example"]
  capabilities = ["pull"]
  [host."https://z.example".header]
    X-One = "1"
    X-Two = ["a", "b"]
[host."127.0.0.1:5000"]
[host."http://a.example/v2/proxy"]
  override_path = true
  skip_verify = true
[host."https://b.example/sub/"]
`,
    );
    const endpoints = await endpointsOf("registry.k8s.io", dir);
    assert.deepEqual(
      endpoints.map((endpoint) => endpoint.base),
      [
        "https://z.example/v2",
        "http://127.0.0.1:5000/v2",
        "http://a.example/v2/proxy",
        "https://b.example/sub/v2",
        "https://upstream.example/v2",
      ],
    );
    assert.deepEqual(
      endpoints.map((endpoint) => endpoint.origin),
      [false, false, false, false, true],
    );
    assert.deepEqual(endpoints[0]?.capabilities, ["pull"]);
    assert.deepEqual(endpoints[0]?.headers, { "x-one": "1", "x-two": "a, b" });
    assert.equal(endpoints[2]?.tls.skipVerify, true);
  });

  it("finds the directory of a port, and the default; reads it anew each time", async () => {
    await configure("_default", '[host."http://127.0.0.1:1"]\n');
    await configure("r.example_5000_", '[host."http://127.0.0.1:2"]\n');
    assert.equal((await bases("r.example:5000"))[0], "http://127.0.0.1:2/v2");
    assert.equal((await bases("other.example"))[0], "http://127.0.0.1:1/v2");
    await configure("r.example:5001", 'server = "http://127.0.0.1:3"\n');
    assert.deepEqual(await bases("r.example:5001"), ["http://127.0.0.1:3/v2"]);
    await configure("_default", "");
    assert.deepEqual(await bases("other.example"), ["https://other.example/v2"]);
  });

  it("reads certificates beside the file, or Docker's way without one", async () => {
    await configure("a.example", 'ca = "ca.pem"\nclient = [["c.pem", "k.pem"]]\n');
    for (const name of ["ca.pem", "c.pem", "k.pem"]) await writeFile(join(dir, "a.example", name), name);
    assert.deepEqual((await endpointsOf("a.example", dir))[0]?.tls, {
      skipVerify: false,
      ca: ["ca.pem"],
      client: [{ cert: "c.pem", key: "k.pem" }],
    });
    await mkdir(join(dir, "b.example"));
    for (const name of ["x.crt", "y.cert", "y.key"]) await writeFile(join(dir, "b.example", name), name);
    assert.deepEqual((await endpointsOf("b.example", dir))[0]?.tls, {
      skipVerify: false,
      ca: ["x.crt"],
      client: [{ cert: "y.cert", key: "y.key" }],
    });
  });

  for (const [what, toml] of [
    ["broken TOML", "server = "],
    ["a wrong type", "skip_verify = 1"],
    ["what is no URL", '[host."https://"]\n'],
    ["a missing certificate", 'ca = "none.pem"'],
  ] as const) {
    it(`names the file for ${what}`, async () => {
      await configure("a.example", toml);
      await assert.rejects(
        endpointsOf("a.example", dir),
        (error) => error instanceof ImageError && error.fact.code === "ERR_HOSTS_TOML" && error.message.includes("hosts.toml"),
      );
    });
  }
});

describe("parseChallenges", () => {
  it("reads several challenges, quoted commas and escapes", () => {
    const challenges = parseChallenges('Negotiate, Bearer realm="https://a/t?x=1,2",service="a \\"b\\"",scope=x, Basic realm=y');
    assert.deepEqual(
      challenges.map(({ scheme, params }) => [scheme, Object.fromEntries(params)]),
      [
        ["bearer", { realm: "https://a/t?x=1,2", service: 'a "b"', scope: "x" }],
        ["basic", { realm: "y" }],
      ],
    );
    assert.deepEqual(parseChallenges(""), []);
    assert.deepEqual(parseChallenges("Digest nonce=1"), []);
  });
});
