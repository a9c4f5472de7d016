import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, it } from "node:test";

const root = join(import.meta.dirname, "..");

/** The indispensable rules: a linter that lost its types still exits 0 on clean code, so each is shown a fault. */
const faults: readonly (readonly [rule: string, code: string])[] = [
  ["no-floating-promises", "export function f(): void { Promise.resolve(1); }"],
  ["no-misused-promises", "export function f(): void { [1].forEach(async () => { await Promise.resolve(1); }); }"],
  ["switch-exhaustiveness-check", 'export function f(x: "a" | "b"): number { switch (x) { case "a": return 1; } return 0; }'],
  ["only-throw-error", 'export function f(): never { throw "text"; }'],
  ["no-explicit-any", "export function f(x: any): void { void x; }"],
  ["await-thenable", "export async function f(): Promise<void> { await 1; }"],
  ["no-default-export", "export default function f(): void {}"],
  ["eqeqeq", "export function f(x: number): boolean { return x == 1; }"],
  ["max-lines-per-function", `export function f(): number {\n  let x = 0;\n${"  x += 1;\n".repeat(80)}  return x;\n}`],
];

describe("lint", () => {
  const dir = mkdtempSync(join(root, ".lint."));
  after(() => rmSync(dir, { recursive: true }));

  for (const [rule, code] of faults) {
    it(`finds ${rule}`, () => {
      const file = join(dir, `${rule}.ts`);
      writeFileSync(file, `${code}\n`);
      const args = ["--type-aware", "--no-ignore", "-c", join(root, ".oxlintrc.json"), "-f", "unix", file];
      const { stdout, status } = spawnSync(join(root, "node_modules/.bin/oxlint"), args, { cwd: root, encoding: "utf8" });
      assert.match(stdout, new RegExp(`\\(${rule}\\)`));
      assert.equal(status, 1);
    });
  }
});
