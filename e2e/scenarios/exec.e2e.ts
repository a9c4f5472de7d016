import assert from "node:assert/strict";
import { test } from "node:test";

import { status } from "@grpc/grpc-js";

import { NamespaceMode, SecurityProfile_ProfileType } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { runtimeUnderTest, slowness } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";

const node = useNode({ images: ["busybox", "custom"] });
const oursOnly = runtimeUnderTest() === "containerd" ? "containerd does not do this" : false;

test("exit code, stdout and stderr", async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  assert.deepEqual(await container.exec(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"]), {
    exitCode: 3,
    stdout: "out\n",
    stderr: "err\n",
  });
  assert.deepEqual(await container.exec(["/bin/true"]), { exitCode: 0, stdout: "", stderr: "" });
  assert.equal((await container.exec(["/bin/sh", "-c", "kill -9 $$"])).exitCode, 137);
});

test("stdin is empty", async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  assert.deepEqual(await container.exec(["/bin/cat"], 5), { exitCode: 0, stdout: "", stderr: "" });
});

test("a program is found by the container's PATH; one that does not exist is named", async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  assert.equal((await container.exec(["echo", "found"])).stdout, "found\n");
  await assert.rejects(container.exec(["/no/such/program"]), /\/no\/such\/program/);
});

test("a megabyte of output arrives whole", async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const { stdout } = await container.exec(["/bin/sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' y"]);
  assert.equal(stdout, "y".repeat(1_000_000));
});

test("output beyond what a message holds is dropped: the command goes on, and its exit code arrives", { skip: oursOnly }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const MiB = 1024 * 1024;
  const print = (mebibytes: number) => `dd if=/dev/zero bs=1M count=${mebibytes} 2>/dev/null`;
  const long = await container.exec(["/bin/sh", "-c", `${print(20)}; echo err >&2; exit 3`]);
  assert.deepEqual([long.exitCode, long.stderr], [3, "err\n"]);
  assert.ok(long.stdout.length > 15 * MiB && long.stdout.length < 16 * MiB, `${long.stdout.length} bytes`);
  const both = await container.exec(["/bin/sh", "-c", `${print(20)}; (${print(20)}) >&2; exit 4`]);
  assert.equal(both.exitCode, 4);
  for (const { length } of [both.stdout, both.stderr]) assert.ok(length > 7 * MiB && length < 8 * MiB, `${length} bytes`);
});

test("environment, directory and user are the container's", async () => {
  await using pod = await node().runPod();
  const envs = [{ key: "GIVEN", value: Buffer.from("by cri") }];
  const container = await pod.start({ image: { image: node().registry.reference("custom") }, envs });
  assert.equal(await container.shell("echo $GIVEN $FROM_IMAGE; pwd; id -u; id -g"), "by cri image\n/srv/app\n1000\n1000");
});

test("a timeout is DeadlineExceeded and kills the process", async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const begunMs = performance.now();
  await assert.rejects(container.exec(["/bin/sleep", "54321"], 1), { code: status.DEADLINE_EXCEEDED });
  assert.ok(performance.now() - begunMs < 5000 * slowness());
  assert.doesNotMatch(await container.shell("ps -o args"), /54321/);
});

test("a timeout kills the whole tree, children in sessions of their own as well", { skip: oursOnly }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const script = "setsid sleep 54322 & (setsid sh -c 'sleep 54323; true' &) ; sleep 54324";
  await assert.rejects(container.exec(["/bin/sh", "-c", script], 1), { code: status.DEADLINE_EXCEEDED });
  assert.doesNotMatch(await container.shell("ps -o args"), /5432\d/);
});

test("a child that keeps the pipes open does not hold the call", { skip: oursOnly }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const begunMs = performance.now();
  assert.equal((await container.exec(["/bin/sh", "-c", "sleep 30 & echo done"])).stdout, "done\n");
  assert.ok(performance.now() - begunMs < 10_000 * slowness());
});

test("an exec'd process is as confined as the container", async () => {
  await using pod = await node().runPod();
  const securityContext = {
    seccomp: { profileType: SecurityProfile_ProfileType.RuntimeDefault },
    noNewPrivs: true,
    capabilities: { dropCapabilities: ["NET_RAW"] },
    namespaceOptions: { pid: NamespaceMode.CONTAINER },
  };
  const container = await pod.start({ linux: { securityContext } });
  const facts = (path: string) => container.shell(`grep -E '^(Cap(Bnd|Eff|Prm)|NoNewPrivs|Seccomp):' ${path}`);
  const own = await facts("/proc/self/status");
  assert.match(own, /^Seccomp:\s+2$/m);
  assert.match(own, /^NoNewPrivs:\s+1$/m);
  assert.equal(own, await facts("/proc/1/status"));
});

test("twenty at once", async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  const results = await Promise.all(Array.from({ length: 20 }, (_, index) => container.exec(["/bin/echo", String(index)])));
  assert.deepEqual(
    results.map((result) => result.stdout),
    results.map((_, index) => `${index}\n`),
  );
});

test("the container must run", async () => {
  await using pod = await node().runPod();
  const created = await pod.create();
  const expected = { code: status.FAILED_PRECONDITION, message: new RegExp(created.id) };
  await assertRefused(node().kind, created.exec(["/bin/true"]), expected);
  await created.start();
  await created.stop(0);
  await assertRefused(node().kind, created.exec(["/bin/true"]), expected);
});
