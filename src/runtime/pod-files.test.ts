import assert from "node:assert/strict";
import { test } from "node:test";
import { RuntimeError } from "./errors.ts";
import { hostnameFile, hostsFile, resolvConfFile } from "./pod-files.ts";

const noDns = { servers: [], searches: [], options: [] };

test("without a DNSConfig the host's file is copied, an empty one is an empty file", () => {
  assert.equal(resolvConfFile(undefined, "nameserver 192.0.2.1\n# kept\n"), "nameserver 192.0.2.1\n# kept\n");
  assert.equal(resolvConfFile(noDns, "nameserver 192.0.2.1\n"), "");
});

test("resolv.conf holds what DNSConfig says", () => {
  const dns = {
    servers: ["10.96.0.10", "fe80::1%eth0"],
    searches: ["default.svc.cluster.local", "_x.example", "."],
    options: ["ndots:5", "edns0"],
  };
  const expected = "search default.svc.cluster.local _x.example .\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\noptions ndots:5 edns0\n";
  assert.equal(resolvConfFile(dns, "ignored"), expected);
});

test("hosts names the pod at each address", () => {
  const lines = hostsFile({ hostname: "web-0", ips: ["10.1.0.7", "fd00::7"] }).split("\n");
  assert.deepEqual(lines.slice(0, 2), ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]);
  assert.deepEqual(lines.slice(-3), ["10.1.0.7\tweb-0", "fd00::7\tweb-0", ""]);
});

test("hostname is one line", () => {
  assert.equal(hostnameFile("web-0"), "web-0\n");
  assert.equal(hostnameFile("a".repeat(64)), `${"a".repeat(64)}\n`);
});

const bad = ["a\nnameserver 6.6.6.6", "a\n", "\na", "a\rb", "a\0b", "a b", "a\tb", "a\u2028b", "a\u00a0b", "ä", "", "a#b", "a\\nb"];
const fields: readonly (readonly [string, (value: string) => string])[] = [
  ["hostname", hostnameFile],
  ["hostname", (hostname) => hostsFile({ hostname, ips: [] })],
  ["ips[0]", (ip) => hostsFile({ hostname: "web", ips: [ip] })],
  ["dns_config.servers[1]", (server) => resolvConfFile({ ...noDns, servers: ["192.0.2.1", server] }, "")],
  ["dns_config.searches[0]", (domain) => resolvConfFile({ ...noDns, searches: [domain] }, "")],
  ["dns_config.options[0]", (option) => resolvConfFile({ ...noDns, options: [option] }, "")],
];
for (const [index, [field, build]] of fields.entries()) {
  test(`what would forge a line is refused, naming ${field} (${index})`, () => {
    for (const value of bad) {
      assert.throws(
        () => build(value),
        (error) => error instanceof RuntimeError && error.fact.code === "ERR_INVALID" && error.fact.field === field,
        `${field} = ${JSON.stringify(value)}`,
      );
    }
  });
}

test("a server is an address, never a name or a port", () => {
  for (const server of ["localhost", "192.0.2.1:53", "192.0.2.1/24", "192.0.2.256", "fe80::1%a\nb"]) {
    assert.throws(() => resolvConfFile({ ...noDns, servers: [server] }, ""), /dns_config\.servers\[0\]/, server);
  }
});

test("a host name is of letters, digits, dots and dashes, at most 64", () => {
  for (const hostname of ["-a", "a-", ".a", "a/b", "a:b", "a".repeat(65)])
    assert.throws(() => hostnameFile(hostname), /hostname/, hostname);
});
