import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";

import { importsOf, violationsOf } from "./house-rules.ts";

const root = join(import.meta.dirname, "..");

function rulesBroken(path: string, text: string): string[] {
  return violationsOf({ path, text }).map(({ rule }) => rule);
}

describe("the tree", () => {
  it("breaks no rule of the house", () => {
    const paths = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.ts", "*.rs"], {
      cwd: root,
      encoding: "utf8",
    });
    const files = paths.split("\0").filter((path) => path !== "");
    assert.ok(files.length > 20, `only ${files.length} files found`);
    const found = files.flatMap((path) => violationsOf({ path, text: readOrEmpty(path) }));
    assert.deepEqual(
      found.map(({ path, rule, detail }) => `${path}: ${rule}: ${detail}`),
      [],
    );
  });

  it("names no registry in the lock file", () => {
    assert.doesNotMatch(readFileSync(join(root, "package-lock.json"), "utf8"), /"resolved":/);
  });
});

describe("import arrows", () => {
  const allowed: [path: string, text: string][] = [
    ["src/cri/runtime/version.ts", 'import { x } from "../../runtime/runtime.ts";'],
    ["src/cri/runtime/version.ts", 'import { x } from "../../../api/gen/cri/v1/api.ts";'],
    ["src/runtime/pod.ts", 'import {\n  a,\n  b,\n} from "../agent/agent.ts";'],
    ["src/runtime/pod.ts", 'import type { x } from "../../api/gen/aurae/pod/v0/pod.ts";'],
    ["src/image/pull.ts", 'import type { Image } from "../runtime/ports.ts";'],
    ["src/netns/cni.ts", 'import { run } from "../host/process.ts";'],
    ["src/config/resolve.ts", 'import type { ImageOptions } from "../image/options.ts";'],
    ["src/cli/why.ts", 'import { x } from "../../api/gen/cri/v1/api.ts";\nimport { y } from "../store/history.ts";'],
    ["src/metrics/metrics.ts", 'import type { Metrics } from "../runtime/ports.ts";'],
    ["src/daemon.ts", 'import { x } from "./config/config.ts";\nimport { y } from "./store/store.ts";'],
    ["src/agent/agent.test.ts", 'import { x } from "../../api/gen/cri/v1/api.ts";'],
  ];
  for (const [path, text] of allowed)
    it(`allows ${path}: ${text.replaceAll("\n", " ")}`, () => assert.deepEqual(rulesBroken(path, text), []));

  const forbidden: [path: string, text: string][] = [
    ["src/runtime/pod.ts", 'import { x } from "../cri/codec/fields.ts";'],
    ["src/image/pull.ts", 'import { x } from "../netns/cni.ts";'],
    ["src/image/pull.ts", 'import { Image } from "../runtime/ports.ts";'],
    ["src/image/pull.ts", 'import type { Pod } from "../runtime/pod.ts";'],
    ["src/streaming/exec.ts", 'import { x } from "../cri/adapter.ts";'],
    ["src/lib/retry.ts", 'import { x } from "../host/process.ts";'],
    ["src/image/pull.ts", 'import { x } from "../config/config.ts";'],
    ["src/config/resolve.ts", 'import { x } from "../image/store.ts";'],
    ["src/runtime/pod.ts", 'import { x } from "../daemon.ts";'],
    ["src/runtime/pod.ts", 'import type { x } from "../../api/gen/cri/v1/api.ts";'],
    ["src/netns/cni.ts", 'import { x } from "../../api/gen/aurae/pod/v0/pod.ts";'],
    ["src/lib/retry.ts", 'import { x } from "../../tools/test.ts";'],
    ["src/lib/retry.ts", 'const x = await import("../runtime/pod.ts");'],
    ["src/lib/retry.ts", 'export { x } from "../runtime/pod.ts";'],
    ["src/lib/retry.ts", 'import "../runtime/pod.ts";'],
    ["src/runtime/pod.ts", 'import { x } from "../cli/why.ts";'],
    ["src/cli/why.ts", 'import { x } from "../config/config.ts";'],
    ["src/attic/thing.ts", 'import { x } from "../lib/retry.ts";'],
    ["e2e/scenarios/pod.e2e.ts", 'import { x } from "../../src/runtime/pod.ts";'],
  ];
  for (const [path, text] of forbidden) it(`forbids ${path}: ${text}`, () => assert.deepEqual(rulesBroken(path, text), ["arrow"]));

  it("sees every form of import", () => {
    const text =
      'import a, { b } from "one";\nimport type { c } from "two";\nimport "three";\nexport { d } from "four";\nawait import("five");';
    assert.deepEqual(
      importsOf(text).map(({ specifier, typeOnly }) => [specifier, typeOnly]),
      [
        ["one", false],
        ["two", true],
        ["three", false],
        ["four", false],
        ["five", false],
      ],
    );
  });
});

describe("other rules", () => {
  const broken: [rule: string, path: string, text: string][] = [
    ["barrel", "src/lib/index.ts", ""],
    ["barrel", "src/lib/all.ts", 'export * from "./retry.ts";'],
    ["name", "src/lib/KeyedQueue.ts", ""],
    ["default export", "src/lib/retry.ts", "export default function retry() {}"],
    ["enum", "src/lib/retry.ts", "export const enum State { On }"],
    ["spawn", "src/netns/cni.ts", 'import { spawn } from "node:child_process";'],
    ["environment", "src/netns/cni.ts", 'const path = process.env["PATH"];'],
    ["todo", "src/lib/retry.ts", "// TO".concat("DO: later")],
    ["size", "src/lib/retry.ts", "x;\n".repeat(401)],
    ["size", "auraed/src/pod/mod.rs", "x;\n".repeat(601)],
  ];
  for (const [rule, path, text] of broken) it(`${rule}: ${path}`, () => assert.deepEqual(rulesBroken(path, text), [rule]));

  const fine: [path: string, text: string][] = [
    ["src/host/process.ts", 'import { spawn } from "node:child_process";'],
    ["src/main.ts", 'const path = process.env["PATH"];'],
    ["src/lib/failpoint.ts", "// never reads process.env itself"],
    ["src/lib/retry.ts", "// TODO(#12): later"],
    ["src/lib/retry.test.ts", "x;\n".repeat(401)],
    ["auraed/src/pod/mod.rs", `${"x;\n".repeat(599)}#[cfg(test)]\nmod tests {\n${"x;\n".repeat(200)}}`],
    ["api/gen/cri/v1/api.ts", "x;\n".repeat(9000)],
  ];
  for (const [path, text] of fine) it(`fine: ${path} (${text.length} bytes)`, () => assert.deepEqual(rulesBroken(path, text), []));
});

/** A file that is listed but being moved away has nothing to judge. */
function readOrEmpty(path: string): string {
  try {
    return readFileSync(join(root, path), "utf8");
  } catch {
    return "";
  }
}
