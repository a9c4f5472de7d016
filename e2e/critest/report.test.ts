import assert from "node:assert/strict";
import { test } from "node:test";

import { formatTotals, parseReport, renderTable, totalsOf } from "./report.ts";

const omissions = [{ namePart: "with digest", reason: "cannot be made" }];

function spec(text: string, state: string, more: object = {}) {
  return {
    ContainerHierarchyTexts: ["[k8s.io] Things", "in context"],
    LeafNodeType: "It",
    LeafNodeText: text,
    State: state,
    RunTime: 1.5e9,
    ...more,
  };
}

function report(specs: readonly object[], more: object = {}): string {
  return JSON.stringify([{ SpecReports: specs, SpecialSuiteFailureReasons: null, ...more }]);
}

const json = report([
  { ContainerHierarchyTexts: null, LeafNodeType: "BeforeSuite", LeafNodeText: "", State: "passed", RunTime: 1 },
  spec("should work", "passed"),
  spec("should | fail", "failed", { Failure: { Message: "no\nluck", Location: { FileName: "/a/b/pod.go", LineNumber: 7 } } }),
  spec("should skip", "skipped", { Failure: { Message: "not here" } }),
  spec("image with digest", "skipped"),
  spec("benchmark", "skipped"),
]);

test("specs that ran, that skipped themselves and that are left out on purpose are results; what a filter left out is none", () => {
  const results = parseReport(json, omissions);
  assert.deepEqual(results, [
    { name: "[k8s.io] Things in context should work", durationMs: 1500, outcome: { state: "passed" } },
    {
      name: "[k8s.io] Things in context should | fail",
      durationMs: 1500,
      outcome: { state: "failed", message: "failed: no\nluck (pod.go:7)" },
    },
    { name: "[k8s.io] Things in context should skip", durationMs: 1500, outcome: { state: "skipped", reason: "not here" } },
    { name: "[k8s.io] Things in context image with digest", durationMs: 1500, outcome: { state: "skipped", reason: "cannot be made" } },
  ]);
  assert.equal(formatTotals(totalsOf([{ title: "a", results }])), "1 passed, 1 failed, 2 skipped");
});

test("a panic, a failed set-up and a suite that was cut short are failures", () => {
  const [panic] = parseReport(report([spec("x", "panicked")]), []);
  assert.equal(panic?.outcome.state, "failed");
  const [setUp] = parseReport(report([{ LeafNodeType: "BeforeSuite", LeafNodeText: "", State: "failed", RunTime: 0 }]), []);
  assert.deepEqual([setUp?.name, setUp?.outcome.state], ["BeforeSuite", "failed"]);
  const cut = parseReport(report([spec("x", "passed")], { SpecialSuiteFailureReasons: ["Suite Timeout Elapsed"] }), []);
  assert.deepEqual(cut.at(-1)?.outcome, { state: "failed", message: "Suite Timeout Elapsed" });
});

test("what our daemon refuses because it needs the host is not applicable; any other refusal is a failure", () => {
  const failed = (message: string) =>
    spec("x", "failed", { Failure: { Message: `rpc error: code = FailedPrecondition desc = ${message}` } });
  const outcomes = parseReport(
    report([
      failed(
        "runtime_handler aurae-vm allows no flat pod, but linux.security_context.namespace_options.ipc is NODE: use runtimeClassName aurae-flat",
      ),
      failed(
        "config.mounts[0].propagation: is PROPAGATION_BIDIRECTIONAL, and mounts do not pass between the host and a microVM; set `runtimeClassName: aurae-flat` on the pod to run it on the host",
      ),
      failed("runtime_handler aurae-vm needs virtualization: no /dev/kvm; use runtimeClassName aurae-flat to run without it"),
      failed('config.mounts[0].host_path: "/tmp/x" lies on proc; set `runtimeClassName: aurae-flat` on the pod to run it on the host'),
    ]),
    [],
  ).map(({ outcome }) => outcome);
  assert.deepEqual(outcomes.slice(0, 2), [
    { state: "not applicable", reason: "needs the host's own namespaces: ipc" },
    { state: "not applicable", reason: "needs mounts shared with the host: PROPAGATION_BIDIRECTIONAL" },
  ]);
  assert.deepEqual(
    outcomes.slice(2).map(({ state }) => state),
    ["failed", "failed"],
  );
});

test("the table has a row for every spec of any column", () => {
  const page = renderTable([
    { title: "one", results: parseReport(json, omissions) },
    { title: "two", results: parseReport(report([spec("should work", "passed"), spec("only here", "passed")]), omissions) },
  ]);
  assert.match(page, /^\| Spec \| one \| two \|$/m);
  assert.match(page, /^\| Total \| 1 passed, 1 failed, 2 skipped \| 2 passed, 0 failed, 0 skipped \|$/m);
  assert.match(page, /should work \| 1\.5 s \| 1\.5 s \|$/m);
  assert.match(page, /should \\\| fail \| \*\*failed\*\* 1\.5 s \| {2}\|$/m);
  assert.match(page, /only here \| {2}\| 1\.5 s \|$/m);
});
