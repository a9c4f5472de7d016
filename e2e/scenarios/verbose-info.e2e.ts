import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { unary } from "../harness/cri-client.ts";
import { runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";

const skip = runtimeUnderTest() === "containerd" ? "about our supervisors and microVMs" : false;
const node = useNode({ pods: "both" });

interface Namespace {
  readonly type: string;
  readonly path?: string;
}

interface Info {
  readonly pid: number;
  readonly supervisorPid: number;
  readonly guestPid?: number;
  readonly sandboxID: string;
  readonly privileged: boolean;
  readonly config: { readonly metadata: { readonly name: string } };
  readonly cniResult: { readonly ips?: readonly unknown[] };
  readonly runtimeSpec: { readonly linux: { readonly namespaces: readonly Namespace[] } };
}

const command = async (pid: number) => (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0").join(" ");

for (const [runtimeHandler, podProcess, containerProcess, pinned] of [
  ["aurae-flat", /auraed pod/, /^\/bin\/sleep 76543 $/, ["network", "ipc", "uts"]],
  ["aurae-vm", /qemu/, /qemu/, ["network"]],
] as const) {
  test(`verbose status has what scripts read, its pids of this host, ${runtimeHandler}`, { skip }, async () => {
    const { runtime } = node().clients;
    await using pod = await node().runPod({ runtimeHandler });
    const container = await pod.start({ command: ["/bin/sleep", "76543"] });
    const ofPod = (await unary(runtime, runtime.podSandboxStatus, { podSandboxId: pod.id, verbose: true })).info["info"] ?? "";
    const sandbox = JSON.parse(ofPod) as Info;
    assert.match(await command(sandbox.pid), podProcess);
    assert.match(await command(sandbox.supervisorPid), /auraed (pod|vm)/);
    assert.equal(sandbox.config.metadata.name, pod.config.metadata?.name);
    assert.equal(sandbox.cniResult.ips?.length, 1);
    const namespaces = sandbox.runtimeSpec.linux.namespaces;
    assert.deepEqual(
      namespaces.map(({ type }) => type),
      pinned,
    );
    for (const { path } of namespaces) assert.ok(existsSync(path ?? ""), `no ${path}`);

    const ofContainer = (await unary(runtime, runtime.containerStatus, { containerId: container.id, verbose: true })).info["info"] ?? "";
    const own = JSON.parse(ofContainer) as Info;
    assert.equal(own.sandboxID, pod.id);
    assert.equal(own.privileged, false);
    assert.match(await command(own.pid), containerProcess);
    assert.equal((own.guestPid ?? 0) > 1, runtimeHandler === "aurae-vm");
    assert.ok(own.runtimeSpec.linux.namespaces.some(({ type }) => type === "mount"));
    await container.stop(0);
    const ended = (await unary(runtime, runtime.containerStatus, { containerId: container.id, verbose: true })).info["info"] ?? "";
    assert.equal((JSON.parse(ended) as Info).pid, 0);
  });
}

test("the runtime's own status says whether the network's configuration was read", { skip }, async () => {
  const { runtime } = node().clients;
  const { info } = await unary(runtime, runtime.status, { verbose: true });
  assert.equal(info["lastCNILoadStatus"], "OK");
  assert.equal((JSON.parse(info["config"] ?? "") as { stateDir: string }).stateDir, node().prefix.stateDir);
});
