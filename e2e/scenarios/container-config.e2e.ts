import assert from "node:assert/strict";
import { test } from "node:test";

import { status } from "@grpc/grpc-js";

import { ContainerState } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import type { Container } from "../harness/container.ts";
import { unary } from "../harness/cri-client.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const node = useNode({ images: ["busybox", "custom"] });
const custom = () => ({ image: { image: node().registry.reference("custom") } });

/** What the custom image's entrypoint prints: arguments, ids, directory, environment. */
async function printed(container: Container): Promise<string> {
  return await waitFor("the environment in the log", async () => {
    const text = await container.logText("stdout");
    return text.includes("SHARED=") ? text : undefined;
  });
}

test("neither command nor args: the image's entrypoint and command", async () => {
  await using pod = await node().runPod();
  const text = await printed(await pod.start({ ...custom(), command: [], logPath: "a.log" }));
  assert.match(text, /^args: from-entrypoint from-cmd\nid: 1000:1000 1000 50000\ncwd: \/srv\/app\n/);
  for (const line of ["FROM_IMAGE=image", "SHARED=image", "HOSTNAME=pod-host"]) assert.match(text, new RegExp(`^${line}$`, "m"));
});

test("args alone keep the entrypoint; a command replaces both", async () => {
  await using pod = await node().runPod();
  assert.match(
    await printed(await pod.start({ ...custom(), command: [], args: ["one", "two words"] })),
    /^args: from-entrypoint one two words\n/,
  );
  const replaced = await pod.runToEnd({ ...custom(), command: ["/bin/echo"], args: ["only", "these"] });
  assert.equal(replaced.stdout, "only these\n");
  assert.equal((await pod.runToEnd({ ...custom(), command: ["/bin/echo"] })).stdout, "\n");
});

test("environment: the image's, overridden by key; values are bytes", async () => {
  await using pod = await node().runPod();
  const envs = [
    { key: "SHARED", value: Buffer.from("cri") },
    { key: "EMPTY", value: Buffer.from("") },
    { key: "EQUALS", value: Buffer.from("a=b=c") },
    { key: "LINES", value: Buffer.from("one\ntwo") },
  ];
  const { stdout } = await pod.runToEnd({ ...custom(), command: ["/bin/env"], envs });
  for (const expected of ["FROM_IMAGE=image", "SHARED=cri", "EMPTY=", "EQUALS=a=b=c", "LINES=one\ntwo"])
    assert.ok(`\n${stdout}`.includes(`\n${expected}\n`), expected);
  assert.ok(!stdout.includes("SHARED=image"));
  const bare = await pod.runToEnd({ command: ["/bin/env"] });
  assert.match(bare.stdout, /^PATH=.*\/bin/m);
});

test("the working directory: CRI's, else the image's, else /; made when missing", async () => {
  await using pod = await node().runPod();
  const pwd = { command: ["/bin/pwd"] };
  assert.equal((await pod.runToEnd({ ...custom(), ...pwd })).stdout, "/srv/app\n");
  assert.equal((await pod.runToEnd(pwd)).stdout, "/\n");
  assert.equal((await pod.runToEnd({ ...custom(), ...pwd, workingDir: "/made/for/this" })).stdout, "/made/for/this\n");
});

test("the image may be named by tag, by id and by a prefix of the id", async () => {
  await using pod = await node().runPod();
  const id = node().registry.image("custom").images[0]?.config.digest ?? "";
  for (const image of [node().registry.reference("custom"), id, id.slice("sha256:".length)]) {
    const container = await pod.create({
      image: { image, userSpecifiedImage: node().registry.reference("custom") },
      command: ["/bin/true"],
    });
    const described = await container.status();
    assert.equal(described.imageId, id);
    assert.equal(described.image?.image, node().registry.reference("custom"));
    assert.notEqual(described.imageRef, "");
  }
});

test("a terminal: one stream, carriage returns", async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: ["/bin/sh", "-c", "test -t 1 && echo terminal; echo err >&2; sleep 100"], tty: true });
  await waitFor("both lines", async () => (await container.logLines()).length === 2);
  const lines = await container.logLines();
  assert.deepEqual(
    lines.map((line) => [line.stream, line.text.replace("\r", "")]),
    [
      ["stdout", "terminal"],
      ["stdout", "err"],
    ],
  );
});

test("stdin: absent it is empty, asked for it stays open", async () => {
  await using pod = await node().runPod();
  const absent = await pod.start({ command: ["/bin/cat"] });
  assert.equal((await absent.waitExited()).exitCode, 0);
  const open = await pod.start({ command: ["/bin/cat"], stdin: true });
  assert.equal((await open.status()).state, ContainerState.CONTAINER_RUNNING);
});

test("what was asked for is listed and described", async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ metadata: { name: "described", attempt: 3 }, labels: { a: "1" }, annotations: { b: "2" } });
  const { runtime } = node().clients;
  const filter = { id: "", state: { state: ContainerState.CONTAINER_RUNNING }, podSandboxId: pod.id, labelSelector: { a: "1" } };
  const { containers } = await unary(runtime, runtime.listContainers, { filter });
  const described = await container.status();
  for (const view of [containers[0], described]) {
    assert.equal(view?.id, container.id);
    assert.deepEqual(view?.metadata, { name: "described", attempt: 3 });
    assert.deepEqual(view?.labels, { a: "1" });
    assert.deepEqual(view?.annotations, { b: "2" });
    assert.equal(view?.image?.image, node().registry.reference("busybox"));
  }
  assert.equal(containers[0]?.podSandboxId, pod.id);
  assert.ok(described.startedAt >= described.createdAt);
  const none = { ...filter, labelSelector: { a: "2" } };
  assert.deepEqual((await unary(runtime, runtime.listContainers, { filter: none })).containers, []);
});

test("a container of another pod's name does not clash; without a command there is an error", async () => {
  await using one = await node().runPod();
  await using other = await node().runPod();
  const metadata = { name: "same" };
  assert.notEqual((await one.create({ metadata })).id, (await other.create({ metadata })).id);
  await assertRefused(node().kind, one.create({ image: { image: "busybox-not-here" } }), {
    code: status.NOT_FOUND,
    message: /busybox-not-here/,
  });
});
