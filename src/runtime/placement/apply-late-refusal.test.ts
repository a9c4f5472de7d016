import assert from "node:assert/strict";
import { mkdir, mkdtempDisposable, readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite, test } from "node:test";
import type { MountRequest } from "../container-config.ts";
import { type FakeRuntime, fakePodRecord, fakeRuntime } from "../fake.ts";
import { container, hostMount, sandbox } from "../oci/test-input.ts";
import type { PodRecord } from "../pod.ts";
import { recover } from "../recover.ts";
import { Pod, podRootDir, type RuntimeOptions } from "../runtime.ts";
import { applyLateRefusal, findLateRefusal } from "./apply-late-refusal.ts";
import type { LateRefusal } from "./late-refusal.ts";

const REFUSAL: LateRefusal = {
  reason: "HostSocket",
  field: "config.mounts[0].host_path",
  message: "config.mounts[0].host_path: is a unix socket",
};

const READY = {
  phase: "ready",
  sandbox: { auraed: { pid: 7, startTime: 1 }, namespaces: { network: "", ipc: "", uts: "", pid: "", user: "" }, network: undefined },
} as const;

interface Scene extends AsyncDisposable {
  readonly runtime: FakeRuntime;
  readonly pod: Pod;
}

async function scene(changes: Partial<PodRecord> = {}, settings: Partial<RuntimeOptions> = {}): Promise<Scene> {
  const dir = await mkdtempDisposable(join(tmpdir(), "late-refusal-"));
  const runtime = fakeRuntime(dir.path, { settings });
  const pod = new Pod(fakePodRecord({ state: READY, ...changes }), dir.path);
  runtime.pods.set(pod.id, pod);
  await mkdir(podRootDir(dir.path, pod.id), { recursive: true });
  return { runtime, pod, [Symbol.asyncDispose]: () => dir[Symbol.asyncDispose]() };
}

const noEdits = { env: [], deviceNodes: [], mounts: [], hooks: [], additionalGids: [] };

test("what is really at a mount's source decides", async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "late-refusal-"));
  const socket = join(dir.path, "agent.sock");
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  try {
    const image = { ...hostMount("/i"), source: { type: "image", image: "i", subPath: "" } } as const;
    const at = (path: string) => ({ ...hostMount("/x"), source: { type: "host", path } }) as const;
    const of = (mounts: readonly MountRequest[]) => ({ config: { ...container, mounts } });
    assert.equal(await findLateRefusal(of([image, at(dir.path), at(join(dir.path, "new"))])), undefined);
    const refusal = await findLateRefusal(of([image, at(socket)]));
    assert.deepEqual([refusal?.reason, refusal?.field], ["HostSocket", "config.mounts[1].host_path"]);
    const cdi = { ...noEdits, mounts: [{ hostPath: socket, containerPath: "/s", type: "bind", options: [] }] };
    assert.equal((await findLateRefusal({ ...of([image]), cdi }))?.reason, "HostSocket", "a CDI device's mount is looked at too");
  } finally {
    server.close();
  }
});

suite("a container that turns out to need the host", () => {
  test("makes the sandbox NOTREADY, durably, and says what comes next", async () => {
    await using at = await scene();
    const error = await applyLateRefusal(at.runtime, at.pod, REFUSAL);
    assert.deepEqual(error.fact, { code: "ERR_PLACEMENT", reason: "NeedsHost" });
    assert.match(
      error.message,
      /^config\.mounts\[0\]\.host_path: .*next attempt runs flat.*restartPolicy Never.*runtimeClassName: aurae-flat/,
    );
    const { state } = at.pod.record;
    assert.ok(state.phase === "crashed" && state.reason === "NeedsHost" && state.message === REFUSAL.message);
    const file = JSON.parse(await readFile(join(podRootDir(at.runtime.options.rootDir, at.pod.id), "record.json"), "utf8"));
    assert.deepEqual(file.pod.refusal, REFUSAL);
    assert.deepEqual(at.runtime.refusals.find(sandbox.metadata.uid), REFUSAL);
  });

  for (const [id, changes, settings] of [
    ["aurae-vm", { handler: "aurae-vm" }, {}],
    ["require-vm", {}, { policy: "require-vm" }],
    ["a pod without a uid", { config: { ...sandbox, metadata: { ...sandbox.metadata, uid: "" } } }, {}],
  ] as const) {
    test(`${id}: only the container fails`, async () => {
      await using at = await scene(changes, settings);
      const error = await applyLateRefusal(at.runtime, at.pod, REFUSAL);
      assert.doesNotMatch(error.message, /next attempt/);
      assert.match(error.message, /runtimeClassName: aurae-flat/);
      assert.equal(at.pod.record.state.phase, "ready");
      assert.equal(at.runtime.refusals.find(sandbox.metadata.uid), undefined);
    });
  }

  test("is remembered over a restart of the daemon", async () => {
    await using at = await scene();
    await applyLateRefusal(at.runtime, at.pod, REFUSAL);
    const images = { recoverMounts: async () => {} } as unknown as FakeRuntime["images"];
    const network = { attached: async () => [] } as unknown as FakeRuntime["network"];
    const host = { findAuraed: () => undefined } as unknown as FakeRuntime["host"];
    const next = fakeRuntime(at.runtime.options.rootDir, { images, network, host });
    await recover(next, { pods: [at.pod.record], containers: [], complete: false });
    assert.deepEqual(next.refusals.find(sandbox.metadata.uid), REFUSAL);
  });
});
