import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";

import { status } from "@grpc/grpc-js";

import { MountPropagation, PodSandboxState } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import { unary } from "../harness/cri-client.ts";
import type { Pod } from "../harness/pod.ts";
import { runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";

const skip = runtimeUnderTest() === "containerd" ? "about our microVMs" : false;
const node = useNode({ pods: "both" });
let count = 0;

/** A socket on which a service of the node listens, and a mount of it. */
async function hostSocket() {
  const path = join(node().prefix.dir, `service-${++count}.sock`);
  const server = createServer((client) => client.end("from the service\n")).listen(path);
  await once(server, "listening");
  return { mounts: [{ hostPath: path, containerPath: "/run/service.sock" }], [Symbol.dispose]: () => void server.close() };
}

interface Placed {
  readonly isolation: string;
  readonly reason: string;
  readonly message: string;
  readonly crash?: { readonly reason: string };
}

async function placed(pod: Pod): Promise<Placed> {
  const { runtime } = node().clients;
  const { info } = await unary(runtime, runtime.podSandboxStatus, { podSandboxId: pod.id, verbose: true });
  return JSON.parse(info["info"] ?? "") as Placed;
}

/** The attempts of one pod, as the kubelet makes them. */
function attempts(runtimeHandler: string) {
  const identity = { name: "needs-the-host", namespace: "e2e", uid: randomUUID() };
  return (attempt: number) => node().runPod({ runtimeHandler, metadata: { ...identity, attempt } });
}

const refused = (message: RegExp) => ({ code: status.FAILED_PRECONDITION, message });

for (const restart of [false, true]) {
  const name = restart ? ", and a daemon that was killed between remembers" : "";
  test(`a container that needs a socket of the host: refused with the reason, the next attempt is flat${name}`, { skip }, async () => {
    using socket = await hostSocket();
    const run = attempts("");
    await using first = await run(0);
    assert.equal((await placed(first)).isolation, "microvm");
    const other = await first.start();
    const reason = /config\.mounts\[0\]\.host_path: .*service-\d+\.sock.* is a unix socket.*next attempt runs flat.*aurae-flat/;
    await assertRefused(node().kind, first.create(socket), refused(reason));
    assert.equal((await first.status()).state, PodSandboxState.SANDBOX_NOTREADY);
    assert.equal((await placed(first)).crash?.reason, "NeedsHost");
    await other.stop(1);
    if (restart) {
      await node().kill9();
      await node().startDaemon();
      assert.equal((await first.status()).state, PodSandboxState.SANDBOX_NOTREADY);
    }
    await first.stop();
    await using second = await run(1);
    const { isolation, reason: placement, message } = await placed(second);
    assert.deepEqual([isolation, placement], ["flat", "LateRefusal"]);
    assert.match(message, /unix socket/);
    const container = await second.start(socket);
    assert.equal(await container.shell("test -S /run/service.sock && echo there"), "there");
    await first.remove();
    await using third = await run(2);
    assert.equal((await placed(third)).reason, "LateRefusal", "also when the refused sandbox is gone");
    await using unrelated = await node().runPod({ runtimeHandler: "" });
    assert.equal((await placed(unrelated)).isolation, "microvm");
  });
}

test("with aurae-vm it only fails: the pod goes on, and the next attempt is a microVM again", { skip }, async () => {
  using socket = await hostSocket();
  const run = attempts("aurae-vm");
  await using first = await run(0);
  const other = await first.start();
  await assertRefused(node().kind, first.create(socket), refused(/is a unix socket.*runtimeClassName: aurae-flat/));
  assert.equal((await first.status()).state, PodSandboxState.SANDBOX_READY);
  assert.equal((await other.exec(["/bin/echo", "alive"])).stdout, "alive\n");
  await first.stop();
  await using second = await run(1);
  assert.equal((await placed(second)).isolation, "microvm");
});

test("devices, the kernel's file systems and shared mounts of the host are refused by their field", { skip }, async () => {
  await using pod = await node().runPod({ runtimeHandler: "aurae-vm" });
  // The guest has a tun of its own.
  const devices = ["/dev/net/tun", "/dev/console"].map((hostPath, index) => ({
    hostPath,
    containerPath: `/dev/d${index}`,
    permissions: "rw",
  }));
  await assertRefused(node().kind, pod.create({ devices }), refused(/config\.devices\[1\]\.host_path: "\/dev\/console"/));
  const container = await pod.start({ devices: devices.slice(0, 1) });
  assert.equal(await container.shell("stat -c '%t %T' /dev/d0"), "a c8");
  for (const hostPath of ["/sys/fs/cgroup", "/proc", "/"]) {
    const mounts = [
      { hostPath: node().prefix.logsDir, containerPath: "/logs" },
      { hostPath, containerPath: "/host" },
    ];
    await assertRefused(node().kind, pod.create({ mounts }), refused(/config\.mounts\[1\]\.host_path: .*host's kernel/));
  }
  const shared = { hostPath: node().prefix.logsDir, containerPath: "/logs", propagation: MountPropagation.PROPAGATION_BIDIRECTIONAL };
  await assertRefused(node().kind, pod.create({ mounts: [shared] }), refused(/config\.mounts\[0\]\.propagation: .*BIDIRECTIONAL/));
  assert.equal((await pod.status()).state, PodSandboxState.SANDBOX_READY);
});
