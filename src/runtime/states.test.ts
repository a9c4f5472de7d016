import assert from "node:assert/strict";
import { suite, test } from "node:test";

import { type ContainerEvent, type ContainerState, exitReason, nextContainerState } from "./container.ts";
import { nextPodState, type PodEvent, type PodState, type Sandbox } from "./pod.ts";

const SANDBOX: Sandbox = {
  auraed: { pid: 7, startTime: 1 },
  namespaces: { network: "/n", ipc: "/i", uts: "/u", pid: "", user: "" },
  network: undefined,
};

const POD_STATES: { readonly [Phase in PodState["phase"]]: PodState } = {
  creating: { phase: "creating" },
  ready: { phase: "ready", sandbox: SANDBOX },
  stopping: { phase: "stopping", sandbox: SANDBOX },
  stopped: { phase: "stopped", sandbox: SANDBOX },
  crashed: { phase: "crashed", sandbox: SANDBOX, reason: "AuraedCrashed", message: "m" },
};

const POD_EVENTS: { readonly [Type in PodEvent["type"]]: PodEvent } = {
  started: { type: "started", sandbox: SANDBOX },
  stop: { type: "stop" },
  "torn-down": { type: "torn-down" },
  crashed: { type: "crashed", reason: "AuraedCrashed", message: "m" },
};

/** Every cell of the table: state × event → state. */
const POD_TABLE: { readonly [Phase in PodState["phase"]]: { readonly [Type in PodEvent["type"]]: PodState["phase"] } } = {
  creating: { started: "ready", stop: "stopping", "torn-down": "stopped", crashed: "crashed" },
  ready: { started: "ready", stop: "stopping", "torn-down": "stopped", crashed: "crashed" },
  stopping: { started: "stopping", stop: "stopping", "torn-down": "stopped", crashed: "stopping" },
  stopped: { started: "stopped", stop: "stopped", "torn-down": "stopped", crashed: "stopped" },
  crashed: { started: "crashed", stop: "stopping", "torn-down": "stopped", crashed: "crashed" },
};

const EXIT = { finishedAtNs: "9", exitCode: 3, reason: "Error", message: "" } as const;

const CONTAINER_STATES: { readonly [Phase in ContainerState["phase"]]: ContainerState } = {
  creating: { phase: "creating" },
  created: { phase: "created", pid: 5 },
  running: { phase: "running", pid: 5, startedAtNs: "4" },
  exited: { phase: "exited", startedAtNs: "4", ...EXIT },
};

const CONTAINER_EVENTS: { readonly [Type in ContainerEvent["type"]]: ContainerEvent } = {
  created: { type: "created", pid: 5 },
  started: { type: "started", startedAtNs: "4" },
  exited: { type: "exited", startedAtNs: "4", exit: { ...EXIT, exitCode: 4 } },
};

const CONTAINER_TABLE: {
  readonly [Phase in ContainerState["phase"]]: { readonly [Type in ContainerEvent["type"]]: ContainerState["phase"] };
} = {
  creating: { created: "created", started: "creating", exited: "exited" },
  created: { created: "created", started: "running", exited: "exited" },
  running: { created: "running", started: "running", exited: "exited" },
  exited: { created: "exited", started: "exited", exited: "exited" },
};

suite("pod states", () => {
  for (const [phase, row] of Object.entries(POD_TABLE) as [PodState["phase"], (typeof POD_TABLE)["ready"]][]) {
    for (const [type, want] of Object.entries(row) as [PodEvent["type"], PodState["phase"]][]) {
      test(`${phase} + ${type} = ${want}`, () => {
        assert.equal(nextPodState(POD_STATES[phase], POD_EVENTS[type]).phase, want);
      });
    }
  }
});

suite("container states", () => {
  for (const [phase, row] of Object.entries(CONTAINER_TABLE) as [ContainerState["phase"], (typeof CONTAINER_TABLE)["created"]][]) {
    for (const [type, want] of Object.entries(row) as [ContainerEvent["type"], ContainerState["phase"]][]) {
      test(`${phase} + ${type} = ${want}`, () => {
        assert.equal(nextContainerState(CONTAINER_STATES[phase], CONTAINER_EVENTS[type]).phase, want);
      });
    }
  }

  test("the first exit is the one that counts", () => {
    assert.deepEqual(nextContainerState(CONTAINER_STATES.exited, CONTAINER_EVENTS.exited), CONTAINER_STATES.exited);
  });

  test("an OOM kill is a reason whatever the code", () => {
    assert.deepEqual(
      [exitReason(0, false), exitReason(1, false), exitReason(137, true), exitReason(0, true)],
      ["Completed", "Error", "OOMKilled", "OOMKilled"],
    );
  });
});
