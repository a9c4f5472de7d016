import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { test } from "node:test";

import { status } from "@grpc/grpc-js";
import type { DeepPartial } from "../../api/gen/cri/v1/api.ts";
import { CheckpointPodRequest, ContainerConfig, NamespaceMode, PodSandboxConfig, RestorePodRequest } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { exited } from "../harness/command.ts";
import { unary } from "../harness/cri-client.ts";
import type { PodOptions } from "../harness/pod.ts";
import { childEnvironment, notInGuest, runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";

const node = useNode();
const unknown = "f".repeat(64);
const oursOnly = runtimeUnderTest() === "containerd" ? "containerd answers otherwise" : false;

test("questions about unknown ids are NotFound and name the id", async () => {
  const { runtime } = node().clients;
  const named = { code: status.NOT_FOUND, message: new RegExp(unknown) };
  const calls: readonly (() => Promise<unknown>)[] = [
    () => unary(runtime, runtime.podSandboxStatus, { podSandboxId: unknown, verbose: false }),
    () => unary(runtime, runtime.containerStatus, { containerId: unknown, verbose: false }),
    () => unary(runtime, runtime.containerStats, { containerId: unknown }),
    () => unary(runtime, runtime.podSandboxStats, { podSandboxId: unknown }),
    () => unary(runtime, runtime.startContainer, { containerId: unknown }),
    () => unary(runtime, runtime.execSync, { containerId: unknown, cmd: ["true"], timeout: 1n }),
    () => unary(runtime, runtime.reopenContainerLog, { containerId: unknown }),
    () =>
      unary(runtime, runtime.createContainer, {
        podSandboxId: unknown,
        config: ContainerConfig.fromPartial({ metadata: { name: "x" }, image: { image: node().registry.reference("busybox") } }),
        sandboxConfig: undefined,
      }),
  ];
  for (const call of calls) await assertRefused(node().kind, call(), named);
});

test("stop and remove of unknown ids succeed", async () => {
  const { runtime } = node().clients;
  await unary(runtime, runtime.stopContainer, { containerId: unknown, timeout: 0n });
  await unary(runtime, runtime.removeContainer, { containerId: unknown });
  await unary(runtime, runtime.stopPodSandbox, { podSandboxId: unknown });
  await unary(runtime, runtime.removePodSandbox, { podSandboxId: unknown });
});

test("unique prefixes of ids do; ambiguous and empty ones do not", async () => {
  const { runtime } = node().clients;
  await using pod = await node().runPod();
  const containers = [];
  const prefixes = new Set<string>();
  // At most 17 containers until two ids share their first digit.
  for (;;) {
    const container = await pod.create();
    containers.push(container);
    const first = container.id.slice(0, 1);
    if (prefixes.has(first)) break;
    prefixes.add(first);
  }
  const twin = containers.at(-1)?.id ?? "";
  const ambiguous = unary(runtime, runtime.containerStatus, { containerId: twin.slice(0, 1), verbose: false });
  await assertRefused(node().kind, ambiguous, { code: status.INVALID_ARGUMENT, message: /ambiguous/ });
  const found = await unary(runtime, runtime.containerStatus, { containerId: twin.slice(0, 20), verbose: false });
  assert.equal(found.status?.id, twin);
  const filtered = await unary(runtime, runtime.listContainers, {
    filter: { id: twin.slice(0, 20), state: undefined, podSandboxId: pod.id.slice(0, 20), labelSelector: {} },
  });
  assert.deepEqual(
    filtered.containers.map((container) => container.id),
    [twin],
  );
  const described = await unary(runtime, runtime.podSandboxStatus, { podSandboxId: pod.id.slice(0, 12), verbose: false });
  assert.equal(described.status?.id, pod.id);
  await assertRefused(node().kind, unary(runtime, runtime.containerStatus, { containerId: "", verbose: false }), {
    code: status.INVALID_ARGUMENT,
    message: /container_id/,
  });
});

test("filters are joined by and; nothing found is an empty list", async () => {
  const { runtime } = node().clients;
  await using pod = await node().runPod({ labels: { app: "a", tier: "x" } });
  const search = async (labelSelector: Record<string, string>, id = "") =>
    (await unary(runtime, runtime.listPodSandbox, { filter: { id, state: undefined, labelSelector } })).items.map((item) => item.id);
  assert.deepEqual(await search({ app: "a", tier: "x" }), [pod.id]);
  assert.deepEqual(await search({ app: "a", tier: "y" }), []);
  assert.deepEqual(await search({}, unknown), []);
});

test("invalid sandboxes are refused by the name of the field", { skip: oursOnly }, async (t) => {
  const cases: readonly (readonly [string, PodOptions, RegExp])[] = [
    ["no name", { metadata: { name: "", uid: "u", namespace: "n" } }, /metadata\.name/],
    ["no namespace", { metadata: { name: "n", uid: "u", namespace: "" } }, /metadata\.namespace/],
    ["no uid", { metadata: { name: "n", uid: "", namespace: "n" } }, /metadata\.uid/],
    ["relative log directory", { logDirectory: "logs" }, /log_directory/],
    ["network mode CONTAINER", { linux: { securityContext: { namespaceOptions: { network: NamespaceMode.CONTAINER } } } }, /network/],
    ["ipc mode TARGET", { linux: { securityContext: { namespaceOptions: { ipc: NamespaceMode.TARGET } } } }, /ipc/],
    ["hostPort out of range", { portMappings: [{ containerPort: 80, hostPort: 70000 }] }, /host_port/],
    ["run_as_group alone", { linux: { securityContext: { runAsGroup: { value: 1n } } } }, /run_as_group/],
    ["unknown handler", { runtimeHandler: "no-such-handler" }, /no-such-handler/],
    ["hostname too long", { hostname: "h".repeat(65) }, /hostname/],
  ];
  for (const [name, options, message] of cases) {
    await t.test(name, () => assertRefused(node().kind, node().runPod(options), { code: status.INVALID_ARGUMENT, message }));
  }
  const { runtime } = node().clients;
  await assertRefused(node().kind, unary(runtime, runtime.runPodSandbox, { config: undefined, runtimeHandler: "" }), {
    code: status.INVALID_ARGUMENT,
    message: /config/,
  });
  assert.deepEqual((await unary(runtime, runtime.listPodSandbox, { filter: undefined })).items, []);
});

test("microVMs are refused while they cannot be had", { skip: oursOnly || notInGuest("here they can be had") }, async () => {
  await assertRefused(node().kind, node().runPod({ runtimeHandler: "aurae-vm" }), {
    code: status.FAILED_PRECONDITION,
    message: /accelerator|microVM|virtual/i,
  });
});

test("invalid containers are refused by the name of the field", { skip: oursOnly }, async (t) => {
  await using pod = await node().runPod();
  const cases: readonly (readonly [string, DeepPartial<ContainerConfig>, RegExp])[] = [
    ["no name", { metadata: { name: "" } }, /metadata\.name/],
    ["no image", { image: { image: "" } }, /image/],
    ["relative mount target", { mounts: [{ hostPath: "/tmp", containerPath: "relative" }] }, /container_path/],
    ["relative mount source", { mounts: [{ hostPath: "relative", containerPath: "/m" }] }, /host_path/],
    [
      "recursive read-only that is not read-only",
      { mounts: [{ hostPath: "/tmp", containerPath: "/m", recursiveReadOnly: true }] },
      /recursive_read_only/,
    ],
    ["unknown capability", { linux: { securityContext: { capabilities: { addCapabilities: ["NO_SUCH"] } } } }, /NO_SUCH/],
    ["log path that leaves the directory", { logPath: "../../escape.log" }, /log_path/],
    ["oom_score_adj out of range", { linux: { resources: { oomScoreAdj: 2000n } } }, /oom_score_adj/],
    [
      "device that does not exist",
      { devices: [{ hostPath: "/dev/no-such", containerPath: "/dev/x", permissions: "rw" }] },
      /\/dev\/no-such/,
    ],
    ["device permissions", { devices: [{ hostPath: "/dev/null", containerPath: "/dev/x", permissions: "rx" }] }, /permissions/],
    ["environment without a key", { envs: [{ key: "", value: Buffer.from("x") }] }, /envs/],
    ["TARGET without an id", { linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.TARGET } } } }, /target_id/],
  ];
  for (const [name, options, message] of cases) {
    await t.test(name, () => assertRefused(node().kind, pod.create(options), { code: status.INVALID_ARGUMENT, message }));
  }
  const { runtime } = node().clients;
  assert.deepEqual((await unary(runtime, runtime.listContainers, { filter: undefined })).containers, []);
});

test("a name in use is refused, and free again after removal", async () => {
  const { runtime } = node().clients;
  const metadata = { name: "twice", uid: "twice-uid", namespace: "e2e", attempt: 0 };
  {
    await using pod = await node().runPod({ metadata });
    await assertRefused(node().kind, node().runPod({ metadata, labels: { another: "pod" } }), {
      code: status.ALREADY_EXISTS,
      message: /twice/,
    });
    await using container = await pod.start({ metadata: { name: "one" } });
    await assertRefused(node().kind, pod.create({ metadata: { name: "one" }, labels: { another: "container" } }), {
      code: status.ALREADY_EXISTS,
      message: /one/,
    });
    await container.remove();
    await using again = await pod.start({ metadata: { name: "one" } });
    assert.notEqual(again.id, container.id);
    await using next = await node().runPod({ metadata: { ...metadata, attempt: 1 } });
    assert.equal((await unary(runtime, runtime.listPodSandbox, { filter: undefined })).items.length, 2, next.id);
  }
  await using pod = await node().runPod({ metadata });
  assert.deepEqual(pod.config.metadata, PodSandboxConfig.fromPartial({ metadata }).metadata);
});

test("calls that are not built yet answer Unimplemented and say where their limits are told", { skip: oursOnly }, async () => {
  const { runtime } = node().clients;
  const calls = {
    CheckpointContainer: () => unary(runtime, runtime.checkpointContainer, { containerId: unknown, location: "/tmp/x", timeout: 1n }),
    CheckpointPod: () => unary(runtime, runtime.checkpointPod, CheckpointPodRequest.fromPartial({ podSandboxId: unknown })),
    RestorePod: () => unary(runtime, runtime.restorePod, RestorePodRequest.fromPartial({})),
  };
  for (const [name, call] of Object.entries<() => Promise<unknown>>(calls)) {
    await assertRefused(node().kind, call(), {
      code: status.UNIMPLEMENTED,
      message: new RegExp(`^${name} is not built yet.*docs/limits\\.md`),
    });
  }
});

test("a second daemon on the same directories is refused by name", async () => {
  const { program, args } = node().command;
  const second = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env: childEnvironment() });
  let output = "";
  second.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  second.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const timer = setTimeout(() => second.kill("SIGKILL"), node().kind === "containerd" ? 2000 : 15_000);
  await exited(second);
  clearTimeout(timer);
  // The reference waits for its database for ever.
  if (node().kind === "aurae-cri") {
    assert.notEqual(second.exitCode, 0);
    assert.equal(second.signalCode, null, "it exits by itself");
    assert.match(output, new RegExp(node().prefix.rootDir));
  }
  const { runtime } = node().clients;
  assert.equal((await unary(runtime, runtime.version, { version: "" })).runtimeApiVersion, "v1");
});
