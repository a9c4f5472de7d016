import assert from "node:assert/strict";
import { test } from "node:test";
import type { ServiceError } from "@grpc/grpc-js";
import { status } from "@grpc/grpc-js";

import { AuthConfig, type Image } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { unary } from "../harness/cri-client.ts";
import { imageSpec } from "../harness/node.ts";
import { writeHosts } from "../harness/prefix.ts";
import { privateAccount, Registry } from "../harness/registry.ts";
import { useNode } from "../harness/use-node.ts";

const node = useNode({ images: [] });

async function pull(reference: string, auth?: Partial<AuthConfig>, timeoutMs?: number): Promise<string> {
  const { image } = node().clients;
  const request = {
    image: imageSpec(reference),
    auth: auth === undefined ? undefined : AuthConfig.fromPartial(auth),
    sandboxConfig: undefined,
  };
  return (await unary(image, image.pullImage, request, timeoutMs === undefined ? {} : { timeoutMs })).imageRef;
}

async function find(reference: string): Promise<Image | undefined> {
  const { image } = node().clients;
  return (await unary(image, image.imageStatus, { image: imageSpec(reference), verbose: false })).image;
}

async function remove(reference: string): Promise<void> {
  const { image } = node().clients;
  await unary(image, image.removeImage, { image: imageSpec(reference) });
}

async function listed(id: string): Promise<Image | undefined> {
  const { image } = node().clients;
  return (await unary(image, image.listImages, { filter: undefined })).images.find((item) => item.id === id);
}

function idOf(name: string): string {
  return node().registry.image(name).images.at(-1)?.config.digest ?? "";
}

function digestReference(name: string): string {
  return `${node().registry.host}/${name}@${node().registry.image(name).manifest.digest}`;
}

test("by tag and by digest it is one image with an id, a tag and a digest", async () => {
  const reference = node().registry.reference("other");
  assert.equal(await pull(reference), idOf("other"));
  assert.equal(await pull(digestReference("other")), idOf("other"));
  const image = await find(reference);
  assert.deepEqual(image?.repoTags, [reference]);
  assert.deepEqual(image?.repoDigests, [digestReference("other")]);
  assert.ok((image?.size ?? 0n) > 0n);
  const id = idOf("other");
  for (const name of [id, id.slice("sha256:".length), id.slice("sha256:".length, 20), digestReference("other")])
    assert.deepEqual(await find(name), image, name);
  assert.deepEqual(await listed(id), image);
  await remove(reference);
  assert.equal(await find(id), undefined);
  assert.equal(await listed(id), undefined);
  await remove(reference);
});

test("by digest alone an image has no tag", async () => {
  assert.equal(await pull(digestReference("other")), idOf("other"));
  assert.deepEqual((await find(idOf("other")))?.repoTags, []);
  await remove(idOf("other"));
});

test("an image that is not there: none, not an error", async () => {
  assert.equal(await find(`${node().registry.host}/nothing:1`), undefined);
  await remove(`sha256:${"0".repeat(64)}`);
});

test("wrong names, tags and digests are told", async () => {
  const { kind, registry } = node();
  await assertRefused(kind, pull(`${registry.host}/no-such-image:1`), { code: status.NOT_FOUND, message: /no-such-image/ });
  await assertRefused(kind, pull(`${registry.host}/busybox:no-such-tag`), { code: status.NOT_FOUND, message: /no-such-tag/ });
  await assertRefused(kind, pull(`${registry.host}/busybox@sha256:${"0".repeat(64)}`), { code: status.NOT_FOUND, message: /0{64}/ });
  await assertRefused(kind, pull(`${registry.host}/UPPER:1`), { code: status.INVALID_ARGUMENT, message: /UPPER/ });
  await assertRefused(kind, pull(""), { code: status.INVALID_ARGUMENT, message: /image/ });
});

test("a registry that is not there is told", async () => {
  await assert.rejects(pull("127.0.0.1:1/busybox:1"), /127\.0\.0\.1:1/);
});

test("a deadline of a millisecond is DeadlineExceeded and does no harm", async () => {
  // The reference sometimes notices first, and says Cancelled.
  const codes = node().kind === "containerd" ? [status.DEADLINE_EXCEEDED, status.CANCELLED] : [status.DEADLINE_EXCEEDED];
  await assert.rejects(pull(node().registry.reference("busybox"), undefined, 1), (error: ServiceError) => codes.includes(error.code));
  assert.equal(await pull(node().registry.reference("busybox")), idOf("busybox"));
});

test("identical pulls at once agree", async () => {
  const ids = await Promise.all(Array.from({ length: 4 }, () => pull(node().registry.reference("layers"))));
  assert.deepEqual(new Set(ids), new Set([idOf("layers")]));
});

test("an index is resolved to this machine's architecture", async () => {
  assert.equal(await pull(node().registry.reference("multi")), idOf("multi"));
  assert.deepEqual((await find(idOf("multi")))?.repoDigests, [digestReference("multi")]);
  await using pod = await node().runPod();
  const container = await pod.start({ image: { image: idOf("multi") } });
  assert.equal(await container.shell("cat /native"), "native");
});

test("gzip, zstd and plain layers with whiteouts, links, modes and owners", async () => {
  await pull(node().registry.reference("layers"));
  await using pod = await node().runPod();
  const container = await pod.start({ image: { image: node().registry.reference("layers") } });
  assert.equal(
    await container.shell("cd /data && find . | sort"),
    "./dir\n./dir/new\n./hard\n./kept\n./link\n./owned".replace("./dir\n", ".\n./dir\n"),
  );
  assert.equal(await container.shell("cat /data/hard /data/link /data/dir/new"), "kept\nkept\nnew");
  assert.equal(await container.shell("stat -c '%a %u:%g' /data/owned /data/dir/new"), "4711 1000:50000\n640 0:0");
  assert.equal(await container.shell("stat -c %h /data/kept; stat -c %a /tmp; readlink /data/link"), "2\n1777\nkept");
  await container.shell("echo changed > /data/kept && rm /data/link && mkdir /data/gone && ls /data/gone");
  const fresh = await pod.start({ image: { image: node().registry.reference("layers") } });
  assert.equal(await fresh.shell("cat /data/kept"), "kept");
});

test("a private registry: refused without credentials, served with them", async () => {
  await using registry = await Registry.start({ private: true });
  await writeHosts(node().prefix, registry.host, `server = "http://${registry.host}"\n`);
  const reference = registry.reference("other");
  await assert.rejects(pull(reference), /401|[Uu]nauthorized|authorization|credentials/);
  const wrong = await pull(reference, { username: privateAccount.username, password: "wrong-password-x" }).catch((error: unknown) =>
    String(error),
  );
  assert.doesNotMatch(wrong, /wrong-password-x|^sha256/);
  const id = await pull(reference, { username: privateAccount.username, password: privateAccount.password });
  assert.equal(id, idOf("other"));
  await remove(id);
  const auth = Buffer.from(`${privateAccount.username}:${privateAccount.password}`).toString("base64");
  assert.equal(await pull(reference, { auth }), idOf("other"));
  assert.match(
    await node().crictl.run("pull", "--creds", `${privateAccount.username}:${privateAccount.password}`, reference),
    new RegExp(id),
  );
  await remove(id);
});

test("a mirror serves the image under its own name", async () => {
  const mirror = `server = "http://127.0.0.1:1"\n[host."http://127.0.0.1:1"]\n  capabilities = ["pull", "resolve"]\n[host."http://${node().registry.host}"]\n  capabilities = ["pull", "resolve"]\n`;
  await writeHosts(node().prefix, "images.example.org", mirror);
  const reference = "images.example.org/other:1";
  assert.equal(await pull(reference), idOf("other"));
  const image = await find(reference);
  assert.deepEqual(image?.repoTags, [reference]);
  assert.deepEqual(image?.repoDigests, [`images.example.org/other@${node().registry.image("other").manifest.digest}`]);

  await pull(node().registry.reference("other"));
  assert.deepEqual((await find(reference))?.repoTags.toSorted(), [reference, node().registry.reference("other")].toSorted());
  await remove(reference);
  assert.equal(await find(node().registry.reference("other")), undefined, "removing one tag removes the image");
});

test("an image in use may be removed; the container goes on and can be read about", async () => {
  const id = await pull(node().registry.reference("other"));
  await using pod = await node().runPod();
  const container = await pod.start({ image: { image: id, userSpecifiedImage: node().registry.reference("other") } });
  await remove(id);
  assert.equal(await find(id), undefined);
  assert.equal(await container.shell("cat /marker"), "other");
  const described = await container.status();
  assert.equal(described.imageId, id);
  assert.notEqual(described.imageRef, "");
  assert.equal(await pull(node().registry.reference("other")), id);
  assert.equal(await container.shell("cat /marker"), "other");
});

test("an image that was never pulled is not pulled by CreateContainer", async () => {
  await using pod = await node().runPod();
  await remove(node().registry.reference("custom"));
  const refused = pod.create({ image: { image: node().registry.reference("custom") } });
  await assertRefused(node().kind, refused, { code: status.NOT_FOUND, message: /custom/ });
});

test("five removals at once succeed", async () => {
  const id = await pull(node().registry.reference("other"));
  await Promise.all(Array.from({ length: 5 }, () => remove(id)));
  assert.equal(await find(id), undefined);
});
