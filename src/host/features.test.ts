import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { readBootId } from "./boot-id.ts";
import { probeHost } from "./features.ts";

test("what the kernel offers is what the kernel says", async () => {
  const features = await probeHost();
  assert.equal(features.kernelRelease, readFileSync("/proc/sys/kernel/osrelease", "utf8").trim());
  assert.equal(features.overlayfs, /\toverlay$/m.test(readFileSync("/proc/filesystems", "utf8")));
  const effective = /^CapEff:\t(\w+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "";
  assert.equal(features.sysResource, Number.parseInt(effective.at(-7) ?? "0", 16) % 2 === 1);
});

test("the boot id is a uuid", () => {
  assert.match(readBootId(), /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
});
