import assert from "node:assert/strict";
import { mkdir, mkdtempDisposable, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite, test } from "node:test";

import type { PodExplanation } from "../runtime/explain.ts";
import { History } from "../store/history.ts";
import { type Finding, why } from "./why.ts";

function explanation(id: string, changes: Partial<PodExplanation> = {}): PodExplanation {
  return {
    version: 1,
    id,
    name: "web",
    namespace: "default",
    uid: "u-1",
    attempt: 0,
    handler: "",
    isolation: "microvm",
    reason: "Default",
    message: "the default is a microVM",
    phase: "stopped",
    createdAtNs: "1700000000000000000",
    timeline: [
      { name: "record", startedAtNs: "1700000000000100000", durationMs: 1.5 },
      { name: "network", startedAtNs: "1700000000020000000", durationMs: 30, failure: "no addresses\u001b[31m left" },
    ],
    containers: [],
    ...changes,
  };
}

interface Scene extends AsyncDisposable {
  readonly root: string;
  ask(pod: string, json?: boolean): ReturnType<typeof why>;
}

/** A root directory without a daemon. */
async function scene(...kept: readonly PodExplanation[]): Promise<Scene> {
  const dir = await mkdtempDisposable(join(tmpdir(), "why-"));
  const history = await History.open(join(dir.path, "history"));
  for (const each of kept) await history.keep(each.id, each);
  const options = { root: dir.path, listen: join(dir.path, "none.sock") };
  return {
    root: dir.path,
    ask: (pod, json = false) => why({ pod, json }, options),
    [Symbol.asyncDispose]: () => dir[Symbol.asyncDispose](),
  };
}

suite("why, of pods that are gone", () => {
  const refused = explanation("aa11", { crash: { reason: "NeedsHost", message: "config.devices[0].host_path: is a device" } });
  const flat = explanation("ab22", { attempt: 1, isolation: "flat", reason: "LateRefusal", createdAtNs: "1700000009000000000" });

  test("by a prefix of the id, with what failed, and the other attempts", async () => {
    await using at = await scene(refused, flat);
    const { exitCode, stdout, stderr } = await at.ask("aa");
    assert.equal(exitCode, 0);
    assert.match(stderr, /the daemon does not answer/);
    assert.match(stdout, /^state +gone, NOTREADY by itself: NeedsHost: config\.devices/m);
    assert.match(stdout, /^ {2}network +\+19\.9 ms +30\.0 ms {2}FAILED\n {6}no addresses\\u001b\[31m left$/m);
    assert.match(stdout, /other attempts of this pod\n {2}1 .* flat {2}LateRefusal {2}ab22$/m);
  });

  test("by name the newest", async () => {
    await using at = await scene(refused, flat);
    const { stdout } = await at.ask("default/web", true);
    const finding = JSON.parse(stdout) as Finding;
    assert.deepEqual([finding.source, finding.explanation.id], ["history", "ab22"]);
    assert.deepEqual(
      finding.otherAttempts.map(({ id }) => id),
      ["aa11"],
    );
  });

  test("an ambiguous prefix, an unknown pod and an unreadable file are said", async () => {
    await using at = await scene(refused, flat);
    const ambiguous = await at.ask("a");
    assert.deepEqual([ambiguous.exitCode, ambiguous.stdout], [1, ""]);
    assert.match(ambiguous.stderr, /ambiguous.*aa11.*ab22/);
    await writeFile(join(at.root, "history", "ff.json"), "{");
    const unknown = await at.ask("ff");
    assert.equal(unknown.exitCode, 1);
    assert.match(unknown.stderr, /no pod 'ff' is known[^]*ff\.json/);
    assert.match((await at.ask("other/web")).stderr, /no pod 'other\/web' is known/);
  });

  test("a file of a later release is not misread", async () => {
    await using at = await scene();
    await mkdir(join(at.root, "history"), { recursive: true });
    await writeFile(join(at.root, "history", "aa.json"), JSON.stringify({ ...explanation("aa"), version: 2 }));
    assert.match((await at.ask("aa")).stderr, /version 2, this release knows 1/);
  });

  test("no directory and no daemon is an error that says both", async () => {
    await using at = await scene();
    const { exitCode, stderr } = await why({ pod: "aa", json: false }, { root: join(at.root, "none"), listen: join(at.root, "none.sock") });
    assert.equal(exitCode, 1);
    assert.match(stderr, /the daemon does not answer.*cannot be read/);
  });
});
