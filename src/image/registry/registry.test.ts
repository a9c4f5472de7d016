import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { after, describe, it } from "node:test";

import type { PullCredentials } from "../../runtime/ports.ts";
import { sha256Of } from "../digest.ts";
import { ImageError } from "../errors.ts";
import type { Descriptor } from "../manifest.ts";
import { parseReference } from "../reference.ts";
import type { Endpoint } from "./hosts.ts";
import { Repository } from "./registry.ts";
import { Tokens } from "./tokens.ts";
import { Transport } from "./transport.ts";

type Handler = (request: IncomingMessage, response: ServerResponse, url: URL) => void;

interface Server {
  readonly host: string;
  readonly requests: {
    readonly method: string;
    readonly url: string;
    readonly authorization: string;
    readonly range: string;
    readonly body: () => string;
  }[];
}

const signal = new AbortController().signal;
const quick = { attempts: 3, retryBaseMs: 1, retryMaxMs: 5 };
const empty: PullCredentials = { username: "", password: "", auth: "", serverAddress: "", identityToken: "", registryToken: "" };
const alice: PullCredentials = { ...empty, username: "alice", password: "secret" };
const blob = randomBytes(3 << 20);
const descriptor: Descriptor = { mediaType: "", digest: sha256Of(blob), sizeBytes: blob.length };
const manifest = Buffer.from('{"schemaVersion":2}');

describe("Repository", () => {
  const cleanup = new AsyncDisposableStack();
  after(() => cleanup.disposeAsync());

  async function serve(handler: Handler): Promise<Server> {
    const requests: Server["requests"] = [];
    const server = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk) => (body += String(chunk)));
      const { authorization = "", range = "" } = request.headers;
      requests.push({ method: request.method ?? "", url: request.url ?? "", authorization, range, body: () => body });
      request.on("end", () => handler(request, response, new URL(request.url ?? "", "http://x")));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    cleanup.defer(async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    });
    return { host: `127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
  }

  function endpoint(host: string, origin = true): Endpoint {
    return {
      base: `http://${host}/v2`,
      host,
      origin,
      capabilities: ["pull", "resolve"],
      headers: {},
      tls: { skipVerify: false, ca: [], client: [] },
    };
  }

  const transport = cleanup.use(new Transport({ noProgressTimeoutMs: 300 }));
  const tokens = new Tokens(transport);

  function repository(endpoints: readonly Endpoint[], credentials?: PullCredentials, domain = endpoints.at(-1)?.host ?? "") {
    return new Repository({ ...quick, reference: parseReference(`${domain}/team/app:v1`), endpoints, credentials }, { transport, tokens });
  }

  async function read(source: AsyncIterable<Buffer>): Promise<Buffer> {
    const chunks: Buffer[] = [];
    for await (const chunk of source) chunks.push(Buffer.from(chunk));
    return Buffer.concat(chunks);
  }

  function rejects(promise: Promise<unknown>, code: ImageError["fact"]["code"]): Promise<void> {
    return assert.rejects(promise, (error) => {
      assert.ok(error instanceof ImageError, String(error));
      assert.equal(error.fact.code, code, error.message);
      assert.doesNotMatch(error.message, /secret/);
      return true;
    });
  }

  it("reads a manifest by tag", async () => {
    const { host, requests } = await serve((_, response) => response.setHeader("content-type", "application/x").end(manifest));
    const answer = await repository([endpoint(host)]).manifest(undefined, { signal });
    assert.deepEqual([answer.digest, answer.contentType], [sha256Of(manifest), "application/x"]);
    assert.equal(requests[0]?.url, "/v2/team/app/manifests/v1");
  });

  it("refuses a manifest that is not the one of its digest, or too large", async () => {
    const { host } = await serve((_, response) => response.end(manifest));
    await rejects(repository([endpoint(host)]).manifest(sha256Of("other"), { signal }), "ERR_DIGEST_MISMATCH");
    const huge = await serve((_, response) => response.end(Buffer.alloc(5 << 20)));
    await rejects(repository([endpoint(huge.host)]).manifest(undefined, { signal }), "ERR_REGISTRY_RESPONSE");
  });

  it("answers a basic challenge, and remembers the answer", async () => {
    const wanted = `Basic ${Buffer.from("alice:secret").toString("base64")}`;
    const { host, requests } = await serve((request, response) => {
      if (request.headers.authorization === wanted) response.end(manifest);
      else response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end();
    });
    await repository([endpoint(host)], alice).manifest(undefined, { signal });
    await repository([endpoint(host)], { ...empty, auth: Buffer.from("alice:secret\0").toString("base64") }).manifest(undefined, {
      signal,
    });
    assert.deepEqual(
      requests.map((request) => request.authorization),
      ["", wanted, wanted],
    );
    await rejects(repository([endpoint(host)]).manifest(undefined, { signal }), "ERR_REGISTRY_UNAUTHORIZED");
    await rejects(
      repository([endpoint(host)], { ...alice, password: "wrong" }).manifest(undefined, { signal }),
      "ERR_REGISTRY_UNAUTHORIZED",
    );
  });

  /** A registry with a token server that lets in who has a password, a refresh token, or anybody for other repositories. */
  async function tokenServers() {
    const realm = await serve((request, response, url) => {
      const basic = Buffer.from((request.headers.authorization ?? "").replace("Basic ", ""), "base64").toString();
      const form = new URLSearchParams(realm.requests.at(-1)?.body());
      const user = form.get("refresh_token") === "refresh" ? "bob" : basic === "alice:secret" ? "alice" : "anonymous";
      assert.equal(form.get("service") ?? url.searchParams.get("service"), "registry, with a comma");
      response.end(JSON.stringify({ token: `for-${user}`, expires_in: 300 }));
    });
    const registry = await serve((request, response) => {
      const { authorization } = request.headers;
      if (authorization === "Bearer for-alice" || authorization === "Bearer for-bob" || authorization === "Bearer given")
        return response.end(manifest);
      const challenge = `Bearer realm="http://${realm.host}/token",service="registry, with a comma",scope="repository:team/app:pull"`;
      return response.writeHead(401, { "www-authenticate": challenge }).end();
    });
    return { realm, registry };
  }

  it("gets a bearer token and uses it again, for the same credentials only", async () => {
    const { realm, registry } = await tokenServers();
    await repository([endpoint(registry.host)], alice).manifest(undefined, { signal });
    await repository([endpoint(registry.host)], alice).manifest(undefined, { signal });
    assert.equal(realm.requests.length, 1);
    assert.match(realm.requests[0]?.url ?? "", /scope=repository%3Ateam%2Fapp%3Apull/);
    await rejects(repository([endpoint(registry.host)]).manifest(undefined, { signal }), "ERR_REGISTRY_UNAUTHORIZED");
    await rejects(
      repository([endpoint(registry.host)], { ...alice, password: "wrong" }).manifest(undefined, { signal }),
      "ERR_REGISTRY_UNAUTHORIZED",
    );
  });

  it("trades an identity token, and sends a registry token as it is", async () => {
    const { realm, registry } = await tokenServers();
    await repository([endpoint(registry.host)], { ...empty, identityToken: "refresh" }).manifest(undefined, { signal });
    assert.deepEqual(
      [realm.requests[0]?.method, new URLSearchParams(realm.requests[0]?.body()).get("grant_type")],
      ["POST", "refresh_token"],
    );
    await repository([endpoint(registry.host)], { ...empty, registryToken: "given" }).manifest(undefined, { signal });
    assert.equal(realm.requests.length, 1);
  });

  it("sends credentials neither to a mirror nor to a registry they were not given for", async () => {
    const challenge: Handler = (_, response) => response.writeHead(401, { "www-authenticate": "Basic realm=x" }).end();
    const mirror = await serve(challenge);
    const origin = await serve(challenge);
    await rejects(
      repository([endpoint(mirror.host, false), endpoint(origin.host)], alice).manifest(undefined, { signal }),
      "ERR_REGISTRY_UNAUTHORIZED",
    );
    assert.deepEqual(
      mirror.requests.map((request) => request.authorization),
      [""],
    );
    assert.equal(mirror.requests[0]?.url, `/v2/team/app/manifests/v1?ns=${encodeURIComponent(origin.host)}`);
    assert.equal(origin.requests.length, 2);
    await rejects(
      repository([endpoint(origin.host)], { ...alice, serverAddress: "https://elsewhere.io/v2/" }).manifest(undefined, { signal }),
      "ERR_REGISTRY_UNAUTHORIZED",
    );
    assert.equal(origin.requests.at(-1)?.authorization, "");
    await rejects(
      repository([endpoint(mirror.host, false)], { ...alice, serverAddress: mirror.host }, "example.io").manifest(undefined, { signal }),
      "ERR_REGISTRY_UNAUTHORIZED",
    );
    assert.match(mirror.requests.at(-1)?.authorization ?? "", /^Basic /);
  });

  it("follows redirects without taking credentials along", async () => {
    const storage = await serve((_, response) => response.end(blob));
    const registry = await serve((request, response) => {
      if (request.headers.authorization === undefined) response.writeHead(401, { "www-authenticate": "Basic" }).end();
      else response.writeHead(307, { location: `http://${storage.host}/data?signed=1` }).end();
    });
    assert.deepEqual(await read(repository([endpoint(registry.host)], alice).blob(descriptor, { signal })), blob);
    assert.deepEqual(
      storage.requests.map((request) => request.authorization),
      [""],
    );
    const loop = await serve((_, response) => response.writeHead(302, { location: "/again" }).end());
    await rejects(repository([endpoint(loop.host)]).manifest(undefined, { signal }), "ERR_REGISTRY_RESPONSE");
  });

  it("goes on where a transfer broke off", async () => {
    const { host, requests } = await serve((request, response) => {
      const start = Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
      response.writeHead(start === 0 ? 200 : 206, {
        "content-length": blob.length - start,
        "content-range": `bytes ${start}-${blob.length - 1}/${blob.length}`,
      });
      response.write(blob.subarray(start, start + 500_000), () => (start + 500_000 >= blob.length ? response.end() : response.destroy()));
    });
    const patient = new Repository(
      { ...quick, attempts: 20, reference: parseReference(`${host}/team/app`), endpoints: [endpoint(host)], credentials: undefined },
      { transport, tokens },
    );
    assert.deepEqual(await read(patient.blob(descriptor, { signal })), blob);
    assert.ok(requests.length > 3);
    assert.ok(requests.slice(1).every((request) => /^bytes=\d+-$/.test(request.range)));
  });

  it("copes with a server that knows no ranges, and moves on to the next endpoint", async () => {
    const broken = await serve((_, response) => {
      response.writeHead(200, { "content-length": blob.length });
      response.write(blob.subarray(0, 100_000), () => response.destroy());
    });
    const whole = await serve((_, response) => response.end(blob));
    assert.deepEqual(await read(repository([endpoint(broken.host, false), endpoint(whole.host)]).blob(descriptor, { signal })), blob);
    await rejects(read(repository([endpoint(broken.host)]).blob(descriptor, { signal })), "ERR_REGISTRY_UNAVAILABLE");
  });

  it("refuses a blob that is longer than its manifest says", async () => {
    const { host } = await serve((_, response) => response.end(Buffer.concat([blob, blob])));
    await rejects(read(repository([endpoint(host)]).blob(descriptor, { signal })), "ERR_REGISTRY_RESPONSE");
  });

  it("waits as long as a 429 says, and tries a 503 again", async () => {
    let refusals = 2;
    const { host } = await serve((_, response) => {
      if (refusals-- > 0) response.writeHead(refusals === 1 ? 429 : 503, { "retry-after": "1" }).end();
      else response.end(manifest);
    });
    const startMs = performance.now();
    await repository([endpoint(host)]).manifest(undefined, { signal });
    assert.ok(performance.now() - startMs >= 1990);
    const never = await serve((_, response) => response.writeHead(500).end());
    await rejects(repository([endpoint(never.host)]).manifest(undefined, { signal }), "ERR_REGISTRY_UNAVAILABLE");
    assert.equal(never.requests.length, 3);
    const later = await serve((_, response) => response.writeHead(429, { "retry-after": "3600" }).end());
    await rejects(repository([endpoint(later.host)]).manifest(undefined, { signal }), "ERR_REGISTRY_UNAVAILABLE");
    assert.equal(later.requests.length, 1);
  });

  it("gives up on silence, and at once when told to", async () => {
    const silent = await serve(() => {});
    await rejects(repository([endpoint(silent.host)]).manifest(undefined, { signal }), "ERR_REGISTRY_UNAVAILABLE");
    const stalling = await serve((_, response) => void response.write(blob.subarray(0, 10)));
    await rejects(read(repository([endpoint(stalling.host)]).blob(descriptor, { signal })), "ERR_REGISTRY_UNAVAILABLE");
    await rejects(repository([endpoint(silent.host)]).manifest(undefined, { signal: AbortSignal.timeout(20) }), "ERR_PULL_ABORTED");
    const before = silent.requests.length;
    await rejects(
      repository([endpoint(silent.host)]).manifest(undefined, { signal: AbortSignal.abort(new DOMException("x", "TimeoutError")) }),
      "ERR_PULL_ABORTED",
    );
    assert.equal(silent.requests.length, before);
  });

  it("tells missing from unreachable", async () => {
    const { host } = await serve((_, response) => response.writeHead(404).end());
    await rejects(repository([endpoint(host)]).manifest(undefined, { signal }), "ERR_REGISTRY_NOT_FOUND");
    await rejects(repository([endpoint("127.0.0.1:1")]).manifest(undefined, { signal }), "ERR_REGISTRY_UNAVAILABLE");
    const origin = await serve((_, response) => response.end(manifest));
    await repository([endpoint("127.0.0.1:1", false), endpoint(host, false), endpoint(origin.host)]).manifest(undefined, { signal });
  });
});
