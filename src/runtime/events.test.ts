import assert from "node:assert/strict";
import { suite, test } from "node:test";

import { type LogFields, silentLog } from "../lib/log.ts";
import type { ContainerState } from "./container.ts";
import { containerEventsUntil, Events, type LifeEvent, podEventsUntil } from "./events.ts";
import type { PodRecord, PodState, Sandbox } from "./pod.ts";

const live = new AbortController().signal;
const EXIT = { finishedAtNs: "9", exitCode: 0, reason: "Completed", message: "" } as const;
const SANDBOX: Sandbox = {
  auraed: { pid: 7, startTime: 1 },
  namespaces: { network: "/n", ipc: "/i", uts: "/u", pid: "", user: "" },
  network: undefined,
};

// Subscriptions carry events and never look into them.
function event(id: string): LifeEvent {
  return { kind: "created", id, atNs: 1n, pod: { id } as PodRecord, containers: [] };
}

suite("the events behind a state", () => {
  const containers: readonly (readonly [ContainerState, string])[] = [
    [{ phase: "creating" }, ""],
    [{ phase: "created", pid: 5 }, "created"],
    [{ phase: "running", pid: 5, startedAtNs: "4" }, "created started"],
    [{ phase: "exited", startedAtNs: "4", ...EXIT }, "created started stopped"],
    [{ phase: "exited", startedAtNs: "0", ...EXIT }, "created stopped"],
  ];
  for (const [state, want] of containers) {
    test(`a container: ${want}`, () => assert.equal(containerEventsUntil(state).join(" "), want));
  }

  const crash = { reason: "AuraedCrashed", message: "m" } as const;
  const pods: readonly (readonly [PodState, string])[] = [
    [{ phase: "creating" }, ""],
    [{ phase: "ready", sandbox: SANDBOX }, "created started"],
    [{ phase: "stopping", sandbox: SANDBOX }, "created started"],
    [{ phase: "stopped", sandbox: SANDBOX }, "created started stopped"],
    [{ phase: "crashed", sandbox: SANDBOX, ...crash }, "created started stopped"],
    [{ phase: "crashed", sandbox: undefined, ...crash }, "created stopped"],
  ];
  for (const [state, want] of pods) {
    test(`a pod that is ${state.phase}: ${want}`, () => assert.equal(podEventsUntil(state).join(" "), want));
  }
});

suite("subscriptions", () => {
  test("each has every event since its own beginning, in order", async () => {
    const events = new Events({ maxWaiting: 16 }, { log: silentLog });
    using early = events.subscribe();
    events.publish(event("a"));
    using late = events.subscribe();
    events.publish(event("b"));
    assert.deepEqual([(await early.next(live)).id, (await early.next(live)).id, (await late.next(live)).id], ["a", "b", "b"]);
    const waiting = late.next(live);
    events.publish(event("c"));
    assert.equal((await waiting).id, "c");
  });

  test("one that is too slow ends with an error, is counted once, and holds up nobody", async () => {
    const warnings: (LogFields | undefined)[] = [];
    const events = new Events({ maxWaiting: 2 }, { log: { ...silentLog, warn: (_message, fields) => void warnings.push(fields) } });
    using quick = events.subscribe();
    {
      using slow = events.subscribe();
      for (const id of ["a", "b", "c", "d"]) {
        events.publish(event(id));
        assert.equal((await quick.next(live)).id, id);
      }
      await assert.rejects(slow.next(live), {
        fact: { code: "ERR_EVENTS_DROPPED" },
        message: /^4 events were dropped .*: list, and call again$/,
      });
    }
    assert.deepEqual(warnings, [{ dropped: 4 }]);
    events.publish(event("e"));
    assert.equal((await quick.next(live)).id, "e");
  });

  test("closing ends them after what waits, and refuses new ones", async () => {
    const events = new Events({ maxWaiting: 16 }, { log: silentLog });
    using subscription = events.subscribe();
    using idle = events.subscribe();
    const waiting = assert.rejects(idle.next(live), { fact: { code: "ERR_SHUTTING_DOWN" } });
    events.close();
    await waiting;
    events.publish(event("late"));
    await assert.rejects(subscription.next(live), { fact: { code: "ERR_SHUTTING_DOWN" } });
    assert.throws(() => events.subscribe(), { fact: { code: "ERR_SHUTTING_DOWN" } });
  });

  test("a wait ends with its signal", async () => {
    const events = new Events({ maxWaiting: 16 }, { log: silentLog });
    using subscription = events.subscribe();
    const controller = new AbortController();
    const waiting = subscription.next(controller.signal);
    controller.abort(new Error("gave up"));
    await assert.rejects(waiting, /gave up/);
  });
});
