import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { AuthConfig } from "../../api/gen/cri/v1/api.ts";
import { runCommand } from "../harness/command.ts";
import { unary } from "../harness/cri-client.ts";
import { imageSpec } from "../harness/node.ts";
import { repositoryDir, runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";

const node = useNode();
const oursOnly = runtimeUnderTest() === "containerd" ? "about our command line and log" : false;
const program = join(repositoryDir, "bin", "aurae-cri");

interface LoggedLine {
  readonly level: string;
  readonly message: string;
  readonly [field: string]: unknown;
}

async function loggedLines(): Promise<LoggedLine[]> {
  const text = await readFile(join(node().prefix.dir, "daemon.log"), "utf8");
  return text
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as LoggedLine);
}

test("messages of five megabytes pass both ways", async () => {
  const large = "x".repeat(5 * 1024 * 1024);
  await using pod = await node().runPod({ annotations: { large } });
  assert.equal((await pod.status()).annotations["large"], large);
});

test("the command line: version, config default and validate", { skip: oursOnly }, async () => {
  assert.match((await runCommand(program, ["version"])).stdout, /aurae-cri \d+\.\d+\.\d+/);
  const shown = await runCommand(program, ["config", "default"]);
  assert.equal(shown.exitCode, 0);
  const path = join(node().prefix.dir, "some.toml");
  await writeFile(path, shown.stdout);
  assert.equal((await runCommand(program, ["config", "validate", path])).exitCode, 0);

  await writeFile(path, '[cni]\nconf_dirs = "/etc/cni"\n');
  const refused = await runCommand(program, ["config", "validate", path]);
  assert.notEqual(refused.exitCode, 0);
  assert.match(refused.stderr, new RegExp(`${path}:2.*conf_dirs`));
  assert.match(refused.stderr, /conf_dir\b/);
  assert.notEqual((await runCommand(program, ["serve", "--config", path])).exitCode, 0);
});

test("one line a call, with method, code, duration and a request id", { skip: oursOnly }, async () => {
  const { runtime } = node().clients;
  await unary(runtime, runtime.version, { version: "" });
  await assert.rejects(unary(runtime, runtime.containerStatus, { containerId: "e".repeat(64), verbose: false }));
  const calls = (await loggedLines()).filter((line) => line.message === "cri call");
  const good = calls.findLast((line) => line["method"] === "Version");
  const bad = calls.findLast((line) => line["method"] === "ContainerStatus");
  assert.deepEqual([good?.level, good?.["status"]], ["info", "OK"]);
  assert.equal(bad?.["status"], "NOT_FOUND");
  for (const line of [good, bad]) {
    assert.equal(typeof line?.["durationMs"], "number");
    assert.match(String(line?.["requestId"]), /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/);
  }
  assert.ok((await loggedLines()).some((line) => line.message === "serving"));
});

test("secrets of a pull do not reach the log", { skip: oursOnly }, async () => {
  const { image } = node().clients;
  const auth = AuthConfig.fromPartial({ username: "somebody", password: "very-secret-word", identityToken: "very-secret-token" });
  await unary(image, image.pullImage, { image: imageSpec(node().registry.reference("other")), auth, sandboxConfig: undefined }).catch(
    () => {},
  );
  const text = await readFile(join(node().prefix.dir, "daemon.log"), "utf8");
  assert.doesNotMatch(text, /very-secret|dmVyeS1zZWNyZXQ|c29tZWJvZHk6dmVyeS1zZWNyZXQtd29yZA/);
});

test("SIGTERM ends the daemon in good order, and its pods go on", { skip: oursOnly }, async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  await node().daemon.stop();
  assert.deepEqual([node().daemon.process.exitCode, node().daemon.process.signalCode], [0, null]);
  await node().startDaemon();
  assert.equal((await container.exec(["/bin/true"])).exitCode, 0);
});
