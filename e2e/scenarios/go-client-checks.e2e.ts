/** The checks of the kubelet's own client library: each is made of an empty answer first, and of ours in every state of a pod's life. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { type ServiceError, status } from "@grpc/grpc-js";

import { ContainerConfig, ContainerState, LinuxContainerResources, PodSandboxConfig, PodSandboxState } from "../../api/gen/cri/v1/api.ts";
import { connectCri, unary } from "../harness/cri-client.ts";
import { readStream } from "../harness/cri-stream.ts";
import { GoClient } from "../harness/go-client.ts";
import { HollowRuntime } from "../harness/hollow-runtime.ts";
import { imageSpec } from "../harness/node.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const node = useNode({ goClient: true });

test("answers without content are refused, and a runtime without streaming lists is noticed", async () => {
  await using stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), "ae2e-hollow-"));
  stack.defer(() => rm(dir, { recursive: true }));
  stack.use(await HollowRuntime.start(join(dir, "hollow.sock")));
  const go = stack.use(await GoClient.start(join(dir, "hollow.sock")));
  const { runtime, image } = stack.use(connectCri(go.socketPath));
  await waitFor("the Go client", () => unary(runtime, runtime.runtimeConfig, {}));

  const id = "some-id";
  const config = { config: PodSandboxConfig.create(), runtimeHandler: "" };
  const container = { podSandboxId: id, config: ContainerConfig.create(), sandboxConfig: PodSandboxConfig.create() };
  const spec = imageSpec(id);
  const io = { containerId: id, stdin: false, stdout: true, stderr: true, tty: false };
  const calls: readonly [() => Promise<unknown>, RegExp][] = [
    [() => unary(runtime, runtime.version, { version: "v1" }), /missing Version, RuntimeName, RuntimeApiVersion, RuntimeVersion/],
    [() => unary(runtime, runtime.status, { verbose: false }), /RuntimeReady or NetworkReady condition/],
    [() => unary(runtime, runtime.runPodSandbox, config), /PodSandboxId is not set/],
    [() => unary(runtime, runtime.podSandboxStatus, { podSandboxId: id, verbose: false }), /status\.Id is not set/],
    [() => unary(runtime, runtime.createContainer, container), /ContainerId is not set/],
    [() => unary(runtime, runtime.containerStatus, { containerId: id, verbose: false }), /status\.Id is not set/],
    [() => unary(runtime, runtime.exec, { ...io, cmd: ["/bin/true"] }), /URL is not set/],
    [() => unary(runtime, runtime.attach, io), /URL is not set/],
    [() => unary(runtime, runtime.portForward, { podSandboxId: id, port: [] }), /URL is not set/],
    [() => unary(image, image.imageStatus, { image: spec, verbose: false }), /Id or size of image "some-id"/],
    [() => unary(image, image.pullImage, { image: spec, auth: undefined, sandboxConfig: undefined }), /imageRef of image "some-id"/],
    [() => readStream(runtime, runtime.streamContainers, { filter: undefined }), /StreamContainers not implemented, falling back/],
  ];
  for (const [call, message] of calls) await assert.rejects(call(), { details: message });
});

test("every answer in the life of a pod passes", async () => {
  const { runtime, image } = node().clients;
  assert.equal((await unary(runtime, runtime.version, { version: "v1" })).runtimeApiVersion, "v1");
  const conditions = (await unary(runtime, runtime.status, { verbose: false })).status?.conditions ?? [];
  for (const type of ["RuntimeReady", "NetworkReady"])
    assert.ok(
      conditions.some((one) => one.type === type && one.status),
      type,
    );
  const imageRef = await node().pull("busybox");
  const found = await unary(image, image.imageStatus, { image: imageSpec(imageRef), verbose: false });
  assert.deepEqual(found.image?.repoTags, [node().registry.reference("busybox")]);
  const absent = await unary(image, image.imageStatus, { image: imageSpec("absent"), verbose: false });
  assert.equal(absent.image, undefined, "that is no error");

  await using pod = await node().runPod();
  const { state, metadata } = await pod.status();
  assert.deepEqual([state, metadata], [PodSandboxState.SANDBOX_READY, pod.config.metadata]);
  const container = await pod.create({ command: ["/bin/sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done"] });
  assert.equal((await container.status()).state, ContainerState.CONTAINER_CREATED);
  await container.start();
  assert.equal((await container.status()).state, ContainerState.CONTAINER_RUNNING);

  const { exitCode, stderr } = await container.exec(["/bin/sh", "-c", "echo oops >&2; exit 7"]);
  assert.deepEqual([exitCode, stderr], [7, "oops\n"]);
  const late = (await container.exec(["/bin/sleep", "60"], 1).catch((error: unknown) => error)) as ServiceError;
  assert.equal(late.code, status.DEADLINE_EXCEEDED);
  assert.match(late.details, /^command timed out: "\/bin\/sleep 60" timed out after 1s/);
  const io = { containerId: container.id, stdin: false, stdout: true, stderr: true, tty: false };
  const urls = await Promise.all([
    unary(runtime, runtime.exec, { ...io, cmd: ["/bin/true"] }),
    unary(runtime, runtime.attach, io),
    unary(runtime, runtime.portForward, { podSandboxId: pod.id, port: [80] }),
  ]);
  for (const { url } of urls) assert.match(url, /^http:\/\/127\.0\.0\.1:\d+\//);
  await container.update(LinuxContainerResources.fromPartial({ memoryLimitInBytes: 48n << 20n }));
  assert.equal((await container.status()).resources?.linux?.memoryLimitInBytes, 48n << 20n);
  await container.reopenLog();

  await container.stop(10);
  const ended = await container.status();
  assert.deepEqual([ended.state, ended.exitCode, ended.reason], [ContainerState.CONTAINER_EXITED, 3, "Error"]);
  await pod.stop();
  assert.equal((await pod.status()).state, PodSandboxState.SANDBOX_NOTREADY);
});
