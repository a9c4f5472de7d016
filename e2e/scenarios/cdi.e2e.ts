import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdirSync, mkdtempSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import { status } from "@grpc/grpc-js";

import { type ContainerConfig, type DeepPartial, PodSandboxState } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const skip = runtimeUnderTest() === "containerd" ? "our configuration of the directories" : false;

/** Specifications, and beside them what the devices are made of. */
const dir = mkdtempSync(join(tmpdir(), "ae2e-cdi-"));
const specDirs = ["low", "high"].map((name) => join(dir, name));
for (const path of specDirs) mkdirSync(path);
after(() => rm(dir, { recursive: true, force: true }));

const node = useNode({ pods: "both", config: { cdi: { spec_dirs: specDirs } } });

async function describeDevices(file: string, devices: Readonly<Record<string, object>>, changes: object = {}): Promise<void> {
  const list = Object.entries(devices).map(([name, containerEdits]) => ({ name, containerEdits }));
  await writeFile(join(dir, file), JSON.stringify({ cdiVersion: "0.8.0", kind: "vendor.example/thing", devices: list, ...changes }));
}

function asking(...names: string[]): DeepPartial<ContainerConfig> {
  return { CDIDevices: names.map((name) => ({ name: `vendor.example/thing=${name}` })) };
}

test("environment, nodes with their rights, mounts, groups and hooks of a device, flat", { skip }, async () => {
  await writeFile(join(dir, "library"), "of the host\n");
  await writeFile(join(dir, "hook.sh"), `#!/bin/sh\ncat > ${dir}/$1.state\necho "$1 $FLAVOUR" >> ${dir}/hooks\n`, { mode: 0o755 });
  const hook = (hookName: string) => ({
    hookName,
    path: join(dir, "hook.sh"),
    args: ["hook.sh", hookName],
    env: ["PATH=/usr/bin:/bin", "FLAVOUR=mild"],
  });
  await describeDevices(
    "low/things.json",
    {
      one: {
        env: ["THING=one", "OWN=device"],
        deviceNodes: [
          { path: "/dev/thing", hostPath: "/dev/fuse", permissions: "r", fileMode: 0o666 },
          { path: "/dev/mine", hostPath: "/dev/full" },
        ],
        mounts: [{ hostPath: join(dir, "library"), containerPath: "/opt/library", options: ["ro", "bind"] }],
        additionalGids: [4242],
      },
      two: {
        hooks: [hook("createRuntime"), hook("poststop")],
        mounts: [{ hostPath: "tmpfs", containerPath: "/scratch", type: "tmpfs", options: ["size=64k"] }],
      },
    },
    { containerEdits: { env: ["ALL=yes"] } },
  );
  await using pod = await node().runPod({ runtimeHandler: "aurae-flat" });
  const user = { linux: { securityContext: { runAsUser: { value: 1000n } } } };
  const container = await pod.start({ ...asking("one", "two"), ...user, envs: [{ key: "OWN", value: Buffer.from("container") }] });
  assert.equal(await container.shell("echo $ALL $THING $OWN; cat /opt/library"), "yes one device\nof the host");
  assert.match((await container.exec(["/bin/touch", "/opt/library"])).stderr, /Read-only/);
  assert.equal(await container.shell("stat -c '%t:%T %a %u' /dev/thing /dev/mine"), "a:e5 666 1000\n1:7 666 1000");
  assert.equal(await container.shell(": < /dev/thing && echo opened"), "opened");
  assert.match((await container.exec(["/bin/sh", "-c", ": > /dev/thing"])).stderr, /Operation not permitted/);
  assert.match(await container.shell("id -G"), /\b4242\b/);
  assert.match(await container.shell("grep /scratch /proc/mounts"), /tmpfs/);
  assert.equal(await readFile(join(dir, "hooks"), "utf8"), "createRuntime mild\n");
  assert.equal((JSON.parse(await readFile(join(dir, "createRuntime.state"), "utf8")) as { id: string }).id, container.id);
  await container.remove();
  assert.equal(await readFile(join(dir, "hooks"), "utf8"), "createRuntime mild\npoststop mild\n");

  const annotated = await pod.start({ annotations: { "cdi.k8s.io/plugin_thing": "vendor.example/thing=one" } });
  assert.equal(await annotated.shell("echo $THING"), "one");
});

test("unknown devices, conflicts and broken specifications: the device is named, nothing is left, what is mended counts at once", {
  skip,
}, async () => {
  await using pod = await node().runPod({ runtimeHandler: "aurae-flat" });
  const create = (name: string) => pod.create({ metadata: { name: "again" }, ...asking(name) });
  const refused = (message: RegExp) => ({ code: status.FAILED_PRECONDITION, message });
  await assertRefused(node().kind, create("absent"), refused(/^CDI device 'vendor\.example\/thing=absent' is not on this node/));
  await writeFile(join(dir, "high/broken.yaml"), "cdiVersion: 0.8.0\nkind: vendor.example/thing\ndevices: [{name: absent}]\n");
  await assertRefused(node().kind, create("absent"), refused(/broken\.yaml cannot be read: devices\.0\.containerEdits/));
  await describeDevices("high/a.json", { absent: { deviceNodes: [{ path: "/dev/no-such-thing" }] } });
  await assertRefused(node().kind, create("absent"), refused(/thing=absent': its device node \/dev\/no-such-thing cannot be made/));
  await describeDevices("high/b.json", { absent: { env: ["A=1"] } });
  await assertRefused(node().kind, create("absent"), refused(/thing=absent' is described by .*a\.json and by .*b\.json/));
  await assertRefused(node().kind, pod.create({ CDIDevices: [{ name: "no-name" }] }), {
    code: status.INVALID_ARGUMENT,
    message: /config\.CDI_devices\[0\]\.name/,
  });
  await rm(join(dir, "high/a.json"));
  await using container = await create("absent");
  await container.start();
  assert.equal(await container.shell("echo $A"), "1");
});

test("in a microVM: variables and files of a device cross, its nodes make the pod's next attempt flat", { skip }, async () => {
  await writeFile(join(dir, "driver"), "of the host\n");
  await describeDevices("low/soft.json", {
    soft: {
      env: ["SOFT=1"],
      mounts: [{ hostPath: join(dir, "driver"), containerPath: "/opt/driver", options: ["ro", "rbind", "rprivate"] }],
    },
    hard: { deviceNodes: [{ path: "/dev/hard", hostPath: "/dev/full" }] },
  });
  const identity = { name: "with-a-device", namespace: "e2e", uid: randomUUID() };
  await using first = await node().runPod({ runtimeHandler: "", metadata: { ...identity, attempt: 0 } });
  const container = await first.start(asking("soft"));
  assert.equal(await container.shell("echo $SOFT; cat /opt/driver"), "1\nof the host");
  assert.match((await container.exec(["/bin/touch", "/opt/driver"])).stderr, /Read-only/);
  await container.remove();
  await assertRefused(node().kind, first.create(asking("hard")), {
    code: status.FAILED_PRECONDITION,
    message: /^config\.CDI_devices: "vendor\.example\/thing=hard" needs "\/dev\/full", a device of the host.*next attempt runs flat/,
  });
  await waitFor("NOTREADY", async () => (await first.status()).state === PodSandboxState.SANDBOX_NOTREADY);
  await first.stop();
  await using second = await node().runPod({ runtimeHandler: "", metadata: { ...identity, attempt: 1 } });
  const flat = await second.start(asking("hard"));
  assert.equal(await flat.shell("stat -c '%t:%T' /dev/hard"), "1:7");
});
