import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { cgroupFile } from "../harness/cgroup.ts";
import { cgroupDriver, podsUnderTest } from "../harness/settings.ts";
import { makeTemplate } from "../harness/template.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

/** crictl gives RunPodSandbox 4 s, which is little for a guest that is emulated on a busy host and boots: the story's goes on from a template. */
const node = useNode({
  images: [],
  prepare: async (started) => {
    if (podsUnderTest() === "microvm") await makeTemplate(started);
  },
});
const logDir = () => join(node().prefix.logsDir, "session");
const ticking =
  "trap 'echo terminated; exit 3' USR1; echo ready; echo oops >&2; i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done";

/** Set by one step, used by the next: a session is one story. */
const story = { image: "", pod: "", container: "" };

interface Described {
  readonly status: {
    readonly id: string;
    readonly state: string;
    readonly metadata: { readonly name: string; readonly namespace?: string; readonly uid?: string };
    readonly labels: Readonly<Record<string, string>>;
    readonly annotations: Readonly<Record<string, string>>;
    readonly image?: { readonly image: string };
    readonly imageRef?: string;
    readonly logPath?: string;
    readonly exitCode?: number;
    readonly reason?: string;
    readonly network?: { readonly ip: string };
    readonly createdAt: string;
    readonly startedAt?: string;
  };
  readonly info: object;
}

async function describe(command: "inspect" | "inspectp", id: string): Promise<Described> {
  return await node().crictl.json<Described>(command, "-o", "json", id);
}

test("version and info", async () => {
  assert.match(await node().crictl.run("version"), /RuntimeName: +\S+\nRuntimeVersion: +\S+\nRuntimeApiVersion: +v1$/);
  const info = await node().crictl.json<{ status: { conditions: { type: string; status: boolean }[] } }>("info");
  const conditions = new Map(info.status.conditions.map((condition) => [condition.type, condition.status]));
  assert.equal(conditions.get("RuntimeReady"), true);
  assert.equal(conditions.get("NetworkReady"), true);
});

test("runtime-config tells the cgroup driver", async () => {
  assert.match(await node().crictl.run("runtime-config"), new RegExp(`\\b${cgroupDriver()}\\b`, "i"));
});

test("pull, images, inspecti, imagefsinfo", async () => {
  const reference = node().registry.reference("custom");
  const wanted = node().registry.image("custom");
  const id = wanted.images[0]?.config.digest ?? "";
  assert.match(await node().crictl.run("pull", reference), new RegExp(id));
  story.image = id;

  const image = (await listedImages()).find((item) => item.id === id);
  assert.deepEqual(image?.repoTags, [reference]);
  assert.deepEqual(image?.repoDigests, [`${node().registry.host}/custom@${wanted.manifest.digest}`]);
  assert.ok(Number(image?.size) > 1000);

  const described = await node().crictl.json<{ status: { id: string; username: string }; info: object }>(
    "inspecti",
    "-o",
    "json",
    reference,
  );
  assert.equal(described.status.id, id);
  assert.equal(described.status.username, "app");
  assert.ok(described.info);

  // containerd measures its snapshots every 10 s.
  const imageFilesystem = await waitFor("a measured image file system", usedImageFilesystem, { timeoutMs: 15_000, intervalMs: 500 });
  assert.ok(imageFilesystem.fsId.mountpoint.startsWith("/"));
});

test("runp, pods, inspectp", async () => {
  const config = {
    metadata: { name: "session", namespace: "e2e", uid: "session-uid", attempt: 1 },
    hostname: "session-host",
    log_directory: logDir(),
    labels: { tier: "test" },
    annotations: { note: "kept" },
    linux: { cgroup_parent: node().prefix.cgroupParent },
  };
  await writeFile(join(node().prefix.dir, "pod.json"), JSON.stringify(config));
  story.pod = await node().crictl.run("runp", join(node().prefix.dir, "pod.json"));
  assert.match(story.pod, /^[0-9a-f]{64}$/);

  const { items } = await node().crictl.json<{ items: { id: string; state: string }[] }>("pods", "-o", "json", "--label", "tier=test");
  assert.deepEqual(
    items.map((item) => [item.id, item.state]),
    [[story.pod, "SANDBOX_READY"]],
  );

  const { status, info } = await describe("inspectp", story.pod.slice(0, 13));
  assert.equal(status.id, story.pod);
  assert.equal(status.state, "SANDBOX_READY");
  assert.deepEqual({ ...status.metadata }, { attempt: 1, name: "session", namespace: "e2e", uid: "session-uid" });
  assert.deepEqual(status.labels, { tier: "test" });
  assert.deepEqual(status.annotations, { note: "kept" });
  assert.match(status.network?.ip ?? "", new RegExp(`^${node().prefix.network.prefix}\\.`));
  assert.equal(typeof info, "object");
});

test("create, start, ps, inspect", async () => {
  const config = {
    metadata: { name: "main" },
    image: { image: node().registry.reference("custom") },
    command: ["/bin/sh", "-c", ticking],
    log_path: "main.log",
    labels: { app: "session" },
    annotations: { note: "container" },
    linux: { resources: { memory_limit_in_bytes: 67108864 } },
  };
  await writeFile(join(node().prefix.dir, "container.json"), JSON.stringify(config));
  story.container = await node().crictl.run(
    "create",
    story.pod,
    join(node().prefix.dir, "container.json"),
    join(node().prefix.dir, "pod.json"),
  );
  assert.match(story.container, /^[0-9a-f]{64}$/);
  assert.equal((await describe("inspect", story.container)).status.state, "CONTAINER_CREATED");

  assert.equal(await node().crictl.run("start", story.container), story.container);
  const { containers } = await node().crictl.json<{ containers: { id: string; state: string; podSandboxId: string; imageId: string }[] }>(
    "ps",
    "-o",
    "json",
  );
  assert.deepEqual(
    containers.map((item) => [item.id, item.state, item.podSandboxId]),
    [[story.container, "CONTAINER_RUNNING", story.pod]],
  );
  assert.equal(containers[0]?.imageId, story.image);

  const { status, info } = await describe("inspect", story.container);
  assert.equal(status.state, "CONTAINER_RUNNING");
  assert.equal(status.image?.image, node().registry.reference("custom"));
  assert.deepEqual(status.labels, { app: "session" });
  assert.deepEqual(status.annotations, { note: "container" });
  assert.equal(status.logPath, join(logDir(), "main.log"));
  assert.ok(Date.parse(status.startedAt ?? "") >= Date.parse(status.createdAt));
  assert.equal(typeof info, "object");
});

test("exec -s", async () => {
  const script = "echo out; echo err >&2";
  assert.match(await node().crictl.run("exec", "-s", story.container, "/bin/sh", "-c", script), /^out\n+err$/);
  const failed = await node().crictl.try("exec", "-s", story.container, "/bin/sh", "-c", `${script}; exit 5`);
  assert.equal(failed.exitCode, 1);
  assert.match(failed.stderr, /exited with 5: err/);
  assert.equal(await node().crictl.run("exec", "-s", story.container, "/bin/pwd"), "/srv/app");
});

test("logs, logs --tail, logs -f", async () => {
  await waitFor("some lines", async () => (await node().crictl.run("logs", story.container)).includes("tick 3"));
  const all = await node().crictl.try("logs", story.container);
  assert.match(all.stdout, /^ready\ntick 1\ntick 2\n/);
  assert.equal(all.stderr, "oops\n");
  assert.match(
    await node().crictl.run("logs", "--tail", "1", "--timestamps", story.container),
    /^\d{4}-\d\d-\d\dT\S+ stdout F tick \d+$|^\d{4}-\d\d-\d\dT\S+ tick \d+$/,
  );

  const following = node().crictl.start("logs", "-f", "--tail", "0", story.container);
  let seen = "";
  following.stdout?.on("data", (chunk: Buffer) => (seen += chunk.toString()));
  try {
    await waitFor("three followed lines", () => seen.split("\n").length > 3);
    const ticks = [...seen.matchAll(/tick (\d+)\n/g)].map((match) => Number(match[1]));
    ticks.slice(1).forEach((tick, index) => assert.equal(tick, (ticks[index] ?? 0) + 1));
  } finally {
    following.kill("SIGTERM");
  }
});

test("stats and statsp", async () => {
  const { stats } = await node().crictl.json<{ stats: ContainerStats[] }>("stats", "-o", "json");
  assert.deepEqual(
    stats.map((item) => item.attributes.id),
    [story.container],
  );
  assert.ok(Number(stats[0]?.cpu.usageCoreNanoSeconds.value) > 0);
  assert.ok(Number(stats[0]?.memory.workingSetBytes.value) > 0);
  assert.match(await node().crictl.run("stats"), /main/);

  const pods = await node().crictl.json<{ stats: { attributes: { id: string }; linux: ContainerStats }[] }>("statsp", "-o", "json");
  assert.deepEqual(
    pods.stats.map((item) => item.attributes.id),
    [story.pod],
  );
  assert.ok(Number(pods.stats[0]?.linux.memory.workingSetBytes.value) > 0);
  assert.match(await node().crictl.run("statsp"), /session/);
});

test("update, read back from the cgroup and the status", async () => {
  assert.equal(await memoryLimit(), "67108864");
  await node().crictl.run("update", "--memory", "134217728", story.container);
  assert.equal(await memoryLimit(), "134217728");
  const { status } = await node().crictl.json<{ status: { resources: { linux: { memoryLimitInBytes: string } } } }>(
    "inspect",
    "-o",
    "json",
    story.container,
  );
  assert.equal(status.resources.linux.memoryLimitInBytes, "134217728");
});

test("stop, rm", async () => {
  assert.equal(await node().crictl.run("stop", "--timeout", "5", story.container), story.container);
  const { status } = await describe("inspect", story.container);
  assert.equal(status.state, "CONTAINER_EXITED");
  assert.equal(status.exitCode, 3);
  assert.match(await node().crictl.run("logs", "--tail", "1", story.container), /terminated/);
  await node().crictl.run("rm", story.container);
  assert.deepEqual((await node().crictl.json<{ containers: object[] }>("ps", "-a", "-o", "json")).containers, []);
});

test("stopp, rmp, rmi", async () => {
  await node().crictl.run("stopp", story.pod);
  assert.equal((await describe("inspectp", story.pod)).status.state, "SANDBOX_NOTREADY");
  await node().crictl.run("rmp", story.pod);
  assert.deepEqual((await node().crictl.json<{ items: object[] }>("pods", "-o", "json")).items, []);
  await node().crictl.run("rmi", node().registry.reference("custom"));
  assert.ok(!(await listedImages()).some((item) => item.id === story.image));
});

async function listedImages(): Promise<readonly ListedImage[]> {
  return (await node().crictl.json<{ images: ListedImage[] }>("images", "-o", "json")).images;
}

async function usedImageFilesystem(): Promise<FilesystemUsage | undefined> {
  const { status } = await node().crictl.json<{ status: { imageFilesystems: FilesystemUsage[] } }>("imagefsinfo", "-o", "json");
  return status.imageFilesystems.find((item) => Number(item.usedBytes.value) > 0);
}

/** What the kernel that runs the container holds for it. The host's process id is found as crictl's users find it. */
async function memoryLimit(): Promise<string> {
  if (podsUnderTest() === "microvm")
    return (await node().crictl.run("exec", "-s", story.container, "cat", "/sys/fs/cgroup/memory.max")).trim();
  const { info } = await node().crictl.json<{ info: { pid?: number } }>("inspect", "-o", "json", story.container);
  assert.ok(Number.isInteger(info.pid), "info.pid of a running container");
  return await cgroupFile(Number(info.pid), "memory", { v1: "memory.limit_in_bytes", v2: "memory.max" });
}

interface ListedImage {
  readonly id: string;
  readonly repoTags: readonly string[];
  readonly repoDigests: readonly string[];
  readonly size: string;
}

interface FilesystemUsage {
  readonly fsId: { readonly mountpoint: string };
  readonly usedBytes: { readonly value: string };
}

interface ContainerStats {
  readonly attributes: { readonly id: string };
  readonly cpu: { readonly usageCoreNanoSeconds: { readonly value: string } };
  readonly memory: { readonly workingSetBytes: { readonly value: string } };
}
