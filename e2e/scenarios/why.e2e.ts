import assert from "node:assert/strict";
import { test } from "node:test";

import { type CommandResult, runCommand } from "../harness/command.ts";
import { unary } from "../harness/cri-client.ts";
import { podsUnderTest, runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";

const skip = runtimeUnderTest() === "containerd" ? "about our command line" : false;
const node = useNode();

/** Of `why --json`, what is looked at here. */
interface Finding {
  readonly source: string;
  readonly explanation: {
    readonly id: string;
    readonly isolation: string;
    readonly reason: string;
    readonly phase: string;
    readonly timeline: readonly { readonly name: string; readonly durationMs: number; readonly failure?: string }[];
    readonly containers: readonly {
      readonly name: string;
      readonly exit?: { readonly code: number };
      readonly timeline: readonly { readonly name: string }[];
    }[];
  };
}

/** A command of ours with the flags of the node's daemon. */
function ours(command: string, ...args: readonly string[]): Promise<CommandResult> {
  const { program, args: daemonArgs } = node().command;
  return runCommand(program, [command, ...args, ...daemonArgs.slice(1)]);
}

async function why(pod: string): Promise<Finding> {
  const { exitCode, stdout, stderr } = await ours("why", "--json", pod);
  assert.equal(exitCode, 0, stderr);
  return JSON.parse(stdout) as Finding;
}

test("why: a running pod, by prefix and by name, with its steps and its containers'", { skip }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ metadata: { name: "worker" } });
  const { source, explanation } = await why(pod.id.slice(0, 12));
  assert.equal(source, "daemon");
  assert.deepEqual([explanation.id, explanation.isolation, explanation.phase], [pod.id, podsUnderTest(), "ready"]);
  assert.notEqual(explanation.reason, "");
  const steps = explanation.timeline.map(({ name }) => name);
  // The node's first pod: it boots, and later ones go on from a template.
  const last = podsUnderTest() === "flat" ? ["pod-files"] : ["vm-turn", "vm-start", "guest-boot", "guest-network", "guest-setup"];
  assert.deepEqual(steps, ["placement", "record", "supervisor", "namespaces", "network", ...last]);
  assert.ok(explanation.timeline.every(({ durationMs }) => durationMs >= 0 && durationMs < 60_000));
  assert.deepEqual(
    explanation.containers.map(({ name, timeline }) => [name, ...timeline.map((step) => step.name)]),
    [["worker", "image-mount", "prepare", "create", "start"]],
  );

  const { metadata } = pod.config;
  assert.equal((await why(`${metadata?.namespace}/${metadata?.name}`)).explanation.id, pod.id);
  const text = (await ours("why", pod.id)).stdout;
  assert.match(text, new RegExp(`^isolation +${podsUnderTest()}$`, "m"));
  assert.match(text, /^ {2}network +\+\d+\.\d ms +\d+\.\d ms$/m);
  assert.match(text, /^container worker, attempt 0, .*: running$/m);
  await container.remove();
});

test("verbose status says where and why", { skip }, async () => {
  await using pod = await node().runPod();
  const { runtime } = node().clients;
  const { info } = await unary(runtime, runtime.podSandboxStatus, { podSandboxId: pod.id, verbose: true });
  const shown = JSON.parse(info["info"] ?? "") as { isolation: string; reason: string; message: string; timeline: readonly unknown[] };
  assert.equal(shown.isolation, podsUnderTest());
  assert.ok(shown.reason !== "" && shown.message !== "" && shown.timeline.length > 0);
});

test("why: a pod that is gone, with the containers it had", { skip }, async () => {
  const pod = await node().runPod();
  const container = await pod.start({
    metadata: { name: "short" },
    command: ["/bin/sh", "-c", "exit 7"],
    envs: [{ key: "TOKEN", value: Buffer.from("leak-me") }],
  });
  await container.waitExited();
  await container.remove();
  await pod[Symbol.asyncDispose]();
  const { source, explanation } = await why(pod.id);
  assert.deepEqual([source, explanation.phase], ["history", "stopped"]);
  assert.deepEqual(
    explanation.containers.map(({ name, exit }) => [name, exit?.code]),
    [["short", 7]],
  );
  assert.doesNotMatch(JSON.stringify(explanation), /leak-me/);
  assert.match((await ours("why", pod.id)).stdout, /^state +gone$/m);
});

test("why: a pod that failed to start, by its name", { skip }, async () => {
  const name = "fails-to-start";
  // No kernel has such a sysctl: the pod's namespaces cannot be made, or its guest not set up.
  await assert.rejects(
    node().runPod({
      metadata: { name, uid: "u-fails", namespace: "e2e", attempt: 0 },
      linux: { sysctls: { "net.ipv4.no_such_sysctl": "1" } },
    }),
  );
  const { source, explanation } = await why(`e2e/${name}`);
  assert.equal(source, "history");
  assert.ok(explanation.timeline.at(-1)?.failure !== undefined, JSON.stringify(explanation.timeline));
  assert.match((await ours("why", `e2e/${name}`)).stdout, /gone: it failed to start[^]*(namespaces|guest-setup).*FAILED/);
});

test("why: without the daemon its records answer, and an unknown pod is exit code 1", { skip }, async () => {
  await using pod = await node().runPod();
  const unknown = await ours("why", "0123456789abcdef");
  assert.equal(unknown.exitCode, 1);
  assert.match(unknown.stderr, /no pod '0123456789abcdef' is known.*\n.*the daemon does not know it/);
  await node().kill9();
  try {
    const { exitCode, stdout, stderr } = await ours("why", "--json", pod.id);
    assert.equal(exitCode, 0);
    assert.equal((JSON.parse(stdout) as Finding).source, "record");
    assert.match(stderr, /the daemon does not answer/);
  } finally {
    await node().startDaemon();
  }
});

test("check: says of a node that works that nothing failed", { skip }, async () => {
  const { exitCode, stdout, stderr } = await ours("check", "--json");
  const { checks } = JSON.parse(stdout) as { checks: readonly { name: string; status: string; found: string }[] };
  assert.equal(exitCode, 0, `${stdout}${stderr}`);
  for (const name of [
    "root",
    "cgroups",
    "overlayfs",
    "erofs",
    "loop devices",
    "disk space",
    "socket",
    "CNI plugins",
    "auraed",
    "virtualization",
  ])
    assert.ok(
      checks.some((check) => check.name === name && check.status !== "failed"),
      `${name}: ${stdout}`,
    );
  assert.match(checks.find(({ name }) => name === "socket")?.found ?? "", /^aurae-cri \d.* serves /);
});
