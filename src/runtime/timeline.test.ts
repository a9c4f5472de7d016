import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { ContainerRecord } from "./container.ts";
import { explainPod, withRemoved } from "./explain.ts";
import { fakePodRecord, fakeRuntime } from "./fake.ts";
import { container as containerConfig, sandbox } from "./oci/test-input.ts";
import { Container, Pod } from "./runtime.ts";
import { containerPhase, type Phase, podPhase, withPhase } from "./timeline.ts";

function containerRecord(id: string, changes: Partial<ContainerRecord> = {}): ContainerRecord {
  return {
    version: 1,
    id,
    podId: "f".repeat(64),
    config: { ...containerConfig, env: [{ key: "TOKEN", value: "leak-env" }], args: ["leak-arg"] },
    imageId: "sha256:1",
    imageRef: "nginx@sha256:1",
    logPath: "",
    stopSignal: 15,
    user: undefined,
    createdAtNs: "5",
    state: { phase: "created", pid: 9 },
    ...changes,
  };
}

suite("the timeline of a start", () => {
  test("has the pod's and the container's steps with their durations, and counts them by mode", async () => {
    const runtime = fakeRuntime("/none");
    const pod = new Pod(fakePodRecord(), "/none");
    assert.equal(await podPhase(runtime, pod, "supervisor", async () => sleep(20, "done")), "done");
    await podPhase(runtime, pod, "network", async () => {});
    const container = new Container(containerRecord("c1"), pod);
    await containerPhase(runtime, container, "prepare", async () => {});
    const [first, second] = pod.record.timeline ?? [];
    assert.deepEqual([first?.name, second?.name], ["supervisor", "network"]);
    assert.ok(first !== undefined && first.durationMs >= 19 && first.durationMs < 2_000, `${first?.durationMs} ms`);
    assert.ok(Math.abs(Number(BigInt(first.startedAtNs) / 1_000_000n) - Date.now()) < 10_000);
    assert.deepEqual(
      container.record.timeline?.map(({ name }) => name),
      ["prepare"],
    );
    assert.deepEqual(
      runtime.phases.map(({ mode, phase }) => `${mode} ${phase}`),
      ["microvm supervisor", "microvm network", "microvm prepare"],
    );
  });

  test("says where a start failed, which is not counted as a duration", async () => {
    const runtime = fakeRuntime("/none");
    const pod = new Pod(fakePodRecord(), "/none");
    const failing = podPhase(runtime, pod, "network", async () => {
      throw new Error(`no addresses left ${"x".repeat(5_000)}`);
    });
    await assert.rejects(failing, /no addresses left/);
    const [phase] = pod.record.timeline ?? [];
    assert.match(phase?.failure ?? "", /^no addresses left/);
    assert.ok((phase?.failure ?? "").length <= 1_024);
    assert.deepEqual(runtime.phases, []);
  });

  test("is in the order of beginnings, and bounded", () => {
    const at = (startedAtNs: string, name: Phase["name"]): Phase => ({ name, startedAtNs, durationMs: 1 });
    const overlapping = [at("20", "network"), at("10", "vm-start"), at("30", "guest-boot")].reduce<readonly Phase[]>(withPhase, []);
    assert.deepEqual(
      overlapping.map(({ startedAtNs }) => startedAtNs),
      ["10", "20", "30"],
    );
    const many = Array.from({ length: 100 }, (_, index) => at(String(index), "start")).reduce<readonly Phase[]>(withPhase, []);
    assert.equal(many.length, 32);
  });
});

suite("the explanation of a pod", () => {
  test("has its containers, also those removed, and nothing that could be a secret", () => {
    const removed = withRemoved(
      fakePodRecord(),
      containerRecord("c1", {
        createdAtNs: "3",
        state: { phase: "exited", startedAtNs: "4", finishedAtNs: "6", exitCode: 3, reason: "Error", message: "" },
      }),
    );
    const explanation = explainPod(removed, [containerRecord("c2")]);
    assert.deepEqual(
      explanation.containers.map(({ id, phase, exit }) => [id, phase, exit?.code]),
      [
        ["c1", "exited", 3],
        ["c2", "created", undefined],
      ],
    );
    assert.deepEqual([explanation.name, explanation.namespace, explanation.uid], ["web", "default", sandbox.metadata.uid]);
    assert.deepEqual([explanation.isolation, explanation.reason], ["microvm", "Default"]);
    assert.doesNotMatch(JSON.stringify(explanation), /leak-/);
  });

  test("remembers the newest of the removed, each once, and none that was never created", () => {
    let record = fakePodRecord();
    for (let index = 0; index < 40; index++) record = withRemoved(record, containerRecord(`c${index}`));
    record = withRemoved(record, containerRecord("c39"));
    record = withRemoved(record, containerRecord("c40", { state: { phase: "creating" } }));
    assert.equal(record.removed?.length, 16);
    assert.deepEqual([record.removed?.[0]?.id, record.removed?.at(-1)?.id], ["c24", "c39"]);
  });
});
