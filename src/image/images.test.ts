import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";

import { silentLog } from "../lib/log.ts";
import type { PullCredentials } from "../runtime/ports.ts";
import { ImageError } from "./errors.ts";
import { FakeLayerMounter, MemoryStore } from "./fake.ts";
import { type ImageRoom, openImages } from "./images.ts";
import type { LayerMounter } from "./layers/layer-mounter.ts";
import { type ImageOptions, imageDefaults } from "./options.ts";
import { RegistryFixture } from "./registry/registry-fixture.ts";

const signal = new AbortController().signal;

describe("Images", () => {
  let dir = "";
  let store = new MemoryStore();
  let mounter = new FakeLayerMounter();
  let registry = new RegistryFixture();
  let images: ImageRoom;

  function open(options: Partial<ImageOptions> = {}, layerMounter: LayerMounter = mounter): Promise<ImageRoom> {
    const platform = { os: "linux", architecture: "amd64", variant: "" };
    const own = { root: join(dir, "root"), stateDir: join(dir, "state"), platform, retryBaseMs: 1, retryMaxMs: 5, ...options };
    return openImages({ ...imageDefaults, ...own }, { store, log: silentLog, layerMounter });
  }

  async function reopen(owners: ReadonlyMap<string, string> = new Map(), options: Partial<ImageOptions> = {}): Promise<void> {
    await images[Symbol.asyncDispose]();
    images = await open(options);
    await images.recoverMounts(owners);
  }

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "aurae-cri-images-"));
    store = new MemoryStore();
    mounter = new FakeLayerMounter();
    registry = new RegistryFixture();
    await registry.listen();
    images = await open();
    await images.recoverMounts(new Map());
  });
  afterEach(async () => {
    await images[Symbol.asyncDispose]();
    await registry[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });

  function pull(name: string, options: { readonly signal?: AbortSignal; readonly credentials?: PullCredentials } = {}): Promise<string> {
    const reference = name.includes("127.0.0.1") || name.includes(".io/") ? name : `${registry.host}/${name}`;
    return images.pull({ reference, credentials: options.credentials, requestId: "test" }, { signal: options.signal ?? signal });
  }

  function rejects(promise: Promise<unknown>, code: ImageError["fact"]["code"]): Promise<void> {
    return assert.rejects(promise, (error) => {
      assert.ok(error instanceof ImageError, String(error));
      assert.equal(error.fact.code, code);
      return true;
    });
  }

  const blobs = () => readdir(join(dir, "root", "layers", "sha256"));
  const file = (name: string, text = name) => ({ name, data: Buffer.from(text) });
  const shared = [file("shared", "x".repeat(5000))];

  it("shows an image right after the pull, and by every name", async () => {
    const pushed = registry.push("app", "v1", {
      layers: [shared, [file("top")]],
      config: { User: "1002:7", Env: ["A=b"], Cmd: ["sh"], Labels: { l: "1" }, Volumes: { "/b": {}, "/a": {} } },
    });
    assert.equal(await pull("app:v1"), pushed.id);
    const [image] = images.list();
    assert.ok(image);
    assert.deepEqual(image.repoTags, [`${registry.host}/app:v1`]);
    assert.deepEqual(image.repoDigests, [`${registry.host}/app@${pushed.manifestDigest}`]);
    assert.deepEqual(
      [image.config.user, image.config.env, image.config.cmd, image.config.volumes, image.config.stopSignal],
      ["1002:7", ["A=b"], ["sh"], ["/a", "/b"], ""],
    );
    assert.deepEqual(
      image.layers.map((layer) => layer.diffId),
      pushed.layers.map((layer) => layer.diffId),
    );
    for (const layer of image.layers) assert.equal((await stat(layer.blobPath)).size % (2 << 20), 0);
    assert.ok(image.sizeBytes > 0);
    const hex = pushed.id.slice(7);
    for (const name of [
      pushed.id,
      hex,
      hex.slice(0, 12),
      `sha256:${hex.slice(0, 5)}`,
      `${registry.host}/app:v1`,
      `${registry.host}/app@${pushed.manifestDigest}`,
      `${registry.host}/app:other@${pushed.manifestDigest}`,
    ]) {
      assert.deepEqual(images.find(name), image, name);
    }
    for (const name of ["", "app:v1", "UPPER", `${registry.host}/app:v2`, `${registry.host}/app`])
      assert.equal(images.find(name), undefined, name);
    const usage = await images.fsUsage();
    assert.ok(usage.usedBytes > 5000n && usage.inodesUsed === 2n);
  });

  it("knows familiar names, and tells two ids with one beginning apart", async () => {
    const config = join(dir, "hosts");
    await mkdir(join(config, "docker.io"), { recursive: true });
    await writeFile(join(config, "docker.io", "hosts.toml"), `server = "http://${registry.host}"\n`);
    await reopen(new Map(), { registryConfigPath: config });
    const { id } = registry.push("library/busybox", "latest", { layers: [shared] });
    assert.equal(await images.pull({ reference: "busybox", credentials: undefined, requestId: "" }, { signal }), id);
    for (const name of ["busybox", "busybox:latest", "library/busybox", "docker.io/library/busybox"])
      assert.equal(images.find(name)?.id, id);
    assert.deepEqual(images.find("busybox")?.repoTags, ["docker.io/library/busybox:latest"]);
    for (let number = 0; number < 20; number++) {
      registry.push("many", `v${number}`, { layers: [shared], config: { Labels: { number: `${number}` } } });
      await pull(`many:v${number}`);
    }
    assert.throws(() => Array.from("0123456789abcdef").map((digit) => images.find(digit)), { name: "ImageError", message: /ambiguous/ });
  });

  it("leaves no tag for a digest, one image for several tags and registries, and moves a tag", async () => {
    const first = registry.push("a", "1", { layers: [shared] });
    registry.push("a", "2", { layers: [shared] });
    registry.push("b", "1", { layers: [shared] });
    await pull(`a@${first.manifestDigest}`);
    assert.deepEqual([images.list()[0]?.repoTags, images.list()[0]?.repoDigests.length], [[], 1]);
    for (const name of ["a:1", "a:2", "b:1"]) assert.equal(await pull(name), first.id);
    assert.equal(images.list().length, 1);
    assert.deepEqual(
      images.list()[0]?.repoTags,
      ["a:1", "a:2", "b:1"].map((name) => `${registry.host}/${name}`),
    );
    const second = registry.push("a", "1", { layers: [[file("new")]] });
    assert.equal(await pull("a:1"), second.id);
    assert.deepEqual(
      images.find(first.id)?.repoTags,
      ["a:2", "b:1"].map((name) => `${registry.host}/${name}`),
    );
    assert.deepEqual(images.find(second.id)?.repoTags, [`${registry.host}/a:1`]);
    await images.remove(`${registry.host}/b:1`);
    assert.deepEqual(
      images.list().map((image) => image.id),
      [second.id],
    );
    await images.remove("unknown");
    assert.equal((await blobs()).length, 1);
  });

  it("joins identical pulls, and fetches a shared layer once", async () => {
    const one = registry.push("one", "v", { layers: [shared, [file("one")]] });
    registry.push("two", "v", { layers: [shared, [file("two")]] });
    await Promise.all([pull("one:v"), pull("one:v"), pull("two:v"), pull("one:v")]);
    assert.equal(registry.count("one/manifests"), 1);
    assert.equal(registry.count(one.layers[0]?.digest ?? "?"), 1);
    const before = registry.requests.length;
    await pull("one:v");
    assert.deepEqual(registry.requests.slice(before), ["HEAD /v2/one/manifests/v"], "an unchanged image is not fetched again");
  });

  it("stops for the last caller who gives up, and leaves nothing", async () => {
    registry.push("slow", "v", { layers: [[file("slow", "s".repeat(100_000))]] });
    const reached = Promise.withResolvers<void>();
    registry.intercept = (request, response) => {
      if (!request.url?.includes("blobs") || registry.count("blobs") < 2) return false;
      response.writeHead(200, { "content-length": 1000 }).write("partial");
      reached.resolve();
      return true;
    };
    const [first, second] = [new AbortController(), new AbortController()];
    const pulls = [pull("slow:v", { signal: first.signal }), pull("slow:v", { signal: second.signal })];
    await reached.promise;
    first.abort();
    await rejects(pulls[0] ?? Promise.resolve(), "ERR_PULL_ABORTED");
    second.abort(new DOMException("late", "TimeoutError"));
    await assert.rejects(
      pulls[1] ?? Promise.resolve(),
      (error) => error instanceof ImageError && error.fact.code === "ERR_PULL_ABORTED" && error.fact.timedOut,
    );
    await rejects(pull("slow:v", { signal: AbortSignal.abort() }), "ERR_PULL_ABORTED");
    registry.intercept = undefined;
    await pull("slow:v");
    assert.equal((await blobs()).length, 1);
  });

  it("does not serve what was fetched with other credentials", async () => {
    registry.push("private", "v", { layers: [shared] });
    const wanted = `Basic ${Buffer.from("a:b").toString("base64")}`;
    registry.intercept = (request, response) => {
      if (request.headers.authorization === wanted) return false;
      response.writeHead(401, { "www-authenticate": "Basic" }).end();
      return true;
    };
    const empty = { username: "", password: "", auth: "", serverAddress: "", identityToken: "", registryToken: "" };
    await pull("private:v", { credentials: { ...empty, username: "a", password: "b" } });
    await rejects(pull("private:v"), "ERR_REGISTRY_UNAUTHORIZED");
    await rejects(pull("private:v", { credentials: { ...empty, username: "a", password: "c" } }), "ERR_REGISTRY_UNAUTHORIZED");
  });

  it("chooses the platform, and says what is offered when there is none", async () => {
    const arm = registry.push("multi", undefined, { layers: [[file("arm")]], architecture: "arm64" });
    const amd = registry.push("multi", undefined, { layers: [[file("amd")]] });
    const digest = registry.index("multi", "v", [
      { image: arm, platform: { os: "linux", architecture: "arm64", variant: "v8" } },
      { image: amd, platform: { os: "linux", architecture: "amd64" } },
    ]);
    assert.equal(await pull("multi:v"), amd.id);
    assert.deepEqual(images.find(amd.id)?.repoDigests, [`${registry.host}/multi@${digest}`]);
    registry.index("multi", "arm", [{ image: arm, platform: { os: "linux", architecture: "arm64" } }]);
    await rejects(pull("multi:arm"), "ERR_NO_MATCHING_PLATFORM");
    await rejects(pull(`multi@${arm.manifestDigest}`), "ERR_NO_MATCHING_PLATFORM");
  });

  it("refuses what is not an image", async () => {
    const config = { mediaType: "application/vnd.oci.image.config.v1+json", digest: registry.blob(Buffer.from("{}")), size: 2 };
    registry.manifest("odd", "both", { schemaVersion: 2, config, layers: [], manifests: [] });
    registry.manifest("odd", "v1", { schemaVersion: 1, fsLayers: [] });
    registry.manifest("odd", "artifact", { schemaVersion: 2, config: { ...config, mediaType: "application/vnd.example" }, layers: [] });
    registry.manifest("odd", "encrypted", {
      schemaVersion: 2,
      config,
      layers: [{ ...config, mediaType: "application/vnd.oci.image.layer.v1.tar+gzip+encrypted" }],
    });
    registry.manifest("odd", "config", { schemaVersion: 2, config, layers: [] });
    await rejects(pull("odd:both"), "ERR_MANIFEST");
    await rejects(pull("odd:v1"), "ERR_UNSUPPORTED_MEDIA_TYPE");
    await rejects(pull("odd:artifact"), "ERR_UNSUPPORTED_MEDIA_TYPE");
    await rejects(pull("odd:encrypted"), "ERR_UNSUPPORTED_MEDIA_TYPE");
    await rejects(pull("odd:config"), "ERR_MANIFEST");
    await rejects(pull("odd:none"), "ERR_REGISTRY_NOT_FOUND");
    await rejects(pull("odd:BAD TAG"), "ERR_INVALID_REFERENCE");
  });

  it("keeps nothing of a layer that is not what was promised", async () => {
    const { layers } = registry.push("bad", "digest", { layers: [[file("bad")]] });
    registry.push("bad", "diff", { layers: [[file("bad")]], diffIds: [`sha256:${"0".repeat(64)}`] });
    registry.push("bad", "tar", { layers: [[{ name: "../x" }]] });
    await rejects(pull("bad:diff"), "ERR_DIGEST_MISMATCH");
    await rejects(pull("bad:tar"), "ERR_LAYER_MALFORMED");
    const [layer] = layers;
    assert.ok(layer);
    registry.corrupt(layer.digest, Buffer.from(layer.bytes).fill(7, 30, 40));
    await rejects(pull("bad:digest"), "ERR_DIGEST_MISMATCH");
    assert.deepEqual([images.list(), await blobs()], [[], []]);
    registry.corrupt(layer.digest, layer.bytes);
    await pull("bad:digest");
  });

  it("pulls from a mirror under the original name, past mirrors that are down or damaged", async () => {
    await using mirror = new RegistryFixture();
    await mirror.listen();
    const config = join(dir, "hosts");
    await mkdir(join(config, "registry.k8s.io"), { recursive: true });
    await reopen(new Map(), { registryConfigPath: config });
    await writeFile(
      join(config, "registry.k8s.io", "hosts.toml"),
      `server = "http://${registry.host}"\n[host."http://127.0.0.1:1"]\n[host."http://${mirror.host}"]\n`,
    );
    const { id, layers } = mirror.push("pause", "3.9", { layers: [shared] });
    assert.equal(await pull("registry.k8s.io/pause:3.9"), id);
    assert.deepEqual(images.list()[0]?.repoTags, ["registry.k8s.io/pause:3.9"]);
    assert.equal(registry.requests.length, 0);
    await images.remove(id);
    mirror.corrupt(layers[0]?.digest ?? id, Buffer.alloc(layers[0]?.bytes.length ?? 0, 1));
    registry.push("pause", "3.9", { layers: [shared] });
    assert.equal(await pull("registry.k8s.io/pause:3.9"), id);
  });

  it("keeps the layers of a removed image while containers use them, across restarts", async () => {
    const { id } = registry.push("used", "v", { layers: [shared, [file("a")], shared] });
    await pull("used:v");
    const dirs = await images.mountLayers(id, "c1", { signal });
    assert.deepEqual(await images.mountLayers(id, "c1", { signal }), dirs);
    assert.deepEqual(await images.mountLayers(id, "c2", { signal }), dirs);
    assert.equal(dirs.length, 2, "a layer that occurs twice is mounted once, where it is uppermost");
    assert.match(mounter.mounts.get(dirs[0] ?? "") ?? "", new RegExp(images.list()[0]?.layers[2]?.diffId.slice(7) ?? "?"));
    await images.releaseLayers("c2");
    await images.remove(id);
    assert.deepEqual([images.list(), images.find(id), (await blobs()).length, mounter.mounts.size], [[], undefined, 2, 2]);
    await reopen(new Map([["c1", id]]));
    assert.deepEqual([images.list().length, (await blobs()).length, mounter.mounts.size], [0, 2, 2]);
    assert.deepEqual(await images.mountLayers(id, "c1", { signal }), dirs);
    assert.equal(await pull("used:v"), id);
    assert.equal(images.list().length, 1);
    await images.remove(id);
    await images.releaseLayers("c1");
    await images.releaseLayers("c1");
    assert.deepEqual([(await blobs()).length, mounter.mounts.size, await readdir(join(dir, "state", "layers"))], [0, 0, []]);
    await rejects(images.mountLayers(id, "c3", { signal }), "ERR_IMAGE_NOT_FOUND");
  });

  it("keeps a layer mounted between containers, until its last image or the daemon goes", async () => {
    const first = registry.push("idle", "v", { layers: [shared, [file("a")]] });
    const second = registry.push("other", "v", { layers: [shared, [file("b")]] });
    await pull("idle:v");
    await pull("other:v");
    await images.mountLayers(first.id, "c1", { signal });
    await images.releaseLayers("c1");
    assert.equal(mounter.mounts.size, 2);
    await images.remove(first.id);
    assert.equal(mounter.mounts.size, 1, "the layer that the other image shares");
    await images[Symbol.asyncDispose]();
    assert.equal(mounter.mounts.size, 0);
    await reopen();
    await images.remove(second.id);
  });

  it("takes down the mounts of owners that are gone", async () => {
    const { id } = registry.push("used", "v", { layers: [shared] });
    await pull("used:v");
    await images.mountLayers(id, "c1", { signal });
    await reopen(new Map());
    assert.deepEqual([mounter.mounts.size, images.list().length], [0, 1]);
  });

  it("survives simultaneous removals and a pull in between", async () => {
    const { id } = registry.push("busy", "v", { layers: [shared] });
    for (let round = 0; round < 5; round++) {
      await pull("busy:v");
      await Promise.all(Array.from({ length: 5 }, () => images.remove(id).then(() => assert.equal(images.find(id), undefined))));
      const [, again] = await Promise.all([images.remove(id), pull("busy:v"), images.remove(id)]);
      assert.equal(again, id);
      const expected = images.list().length;
      assert.equal((await blobs()).length, expected);
    }
  });

  it("cleans up at start what a crash left, and drops damaged images", async () => {
    const kept = registry.push("kept", "v", { layers: [shared] });
    const damaged = registry.push("damaged", "v", { layers: [[file("d")]] });
    await pull("kept:v");
    await pull("damaged:v");
    const layers = join(dir, "root", "layers", "sha256");
    await writeFile(join(layers, ".half.tmp"), "x");
    await writeFile(join(layers, `${"1".repeat(64)}.erofs`), "without a record");
    await truncate(images.find(damaged.id)?.layers[0]?.blobPath ?? "", 4096);
    await reopen();
    assert.deepEqual(
      images.list().map((image) => image.id),
      [kept.id],
    );
    assert.equal((await blobs()).length, 1);
    assert.equal(await pull("damaged:v"), damaged.id);
  });

  it("pins by pattern", async () => {
    await reopen(new Map(), { pinnedImages: ["*/pinned:*"] });
    registry.push("pinned", "v", { layers: [shared] });
    registry.push("other", "v", { layers: [[file("o")]] });
    await pull("pinned:v");
    await pull("other:v");
    assert.deepEqual(
      images.list().map((image) => image.pinned),
      [true, false],
    );
  });
});
