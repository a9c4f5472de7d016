import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, rmdir, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { mustRun } from "./command.ts";
import { compare, formatLeaks, type LeakKind, leakKinds, leaksSince, snapshot } from "./leak-check.ts";

const signal = new AbortController().signal;

async function sh(program: string, ...args: readonly string[]): Promise<string> {
  return (await mustRun(program, args, { signal })).trim();
}

/** A thing that was left behind on purpose. */
interface Plant {
  /** What the report's line must hold. */
  readonly shows: string;
  readonly undo: () => Promise<unknown>;
}

const planters: Readonly<Record<LeakKind, (directory: string, tag: string) => Promise<Plant>>> = {
  async netns(_directory, tag) {
    await sh("ip", "netns", "add", `aurae-leak-${tag}`);
    return { shows: `/run/netns/aurae-leak-${tag}`, undo: () => sh("ip", "netns", "del", `aurae-leak-${tag}`) };
  },
  async mount(directory) {
    const target = join(directory, "with blank");
    await mkdir(target);
    await sh("mount", "-t", "tmpfs", "aurae-leak", target);
    return { shows: target, undo: () => sh("umount", target).then(() => rmdir(target)) };
  },
  async cgroup(_directory, tag) {
    // The first hierarchy of whatever kind the host has.
    const hierarchy = (await sh("findmnt", "--noheadings", "--output", "TARGET", "--list", "--types", "cgroup,cgroup2")).split("\n")[0];
    const path = join(hierarchy ?? "", `aurae-leak-${tag}`);
    await mkdir(path);
    return { shows: path, undo: () => rmdir(path) };
  },
  async process() {
    const child = spawn("sleep", ["61.5"], { stdio: "ignore" });
    const exited = once(child, "exit");
    await once(child, "spawn");
    const undo = async (): Promise<void> => {
      child.kill("SIGKILL");
      await exited;
    };
    return { shows: `${child.pid} started`, undo };
  },
  async link(_directory, tag) {
    await sh("ip", "link", "add", `lk${tag}a`, "type", "veth", "peer", "name", `lk${tag}b`);
    return { shows: `lk${tag}a (veth)`, undo: () => sh("ip", "link", "del", `lk${tag}a`) };
  },
  async loop(directory) {
    const file = join(directory, "disk");
    await writeFile(file, "");
    await truncate(file, 1 << 20);
    const device = await sh("losetup", "--find", "--show", file);
    return { shows: `${device} of ${file}`, undo: () => sh("losetup", "--detach", device).then(() => rm(file)) };
  },
  async directory(directory) {
    const path = join(directory, "deep", "er");
    await mkdir(path, { recursive: true });
    return { shows: path, undo: () => rm(join(directory, "deep"), { recursive: true }) };
  },
  async file(directory) {
    const path = join(directory, "left.json");
    await writeFile(path, "");
    return { shows: path, undo: () => rm(path) };
  },
};

for (const kind of leakKinds) {
  test(`a planted ${kind} is reported, and no more once it is gone`, async () => {
    const directory = await mkdtemp(join(tmpdir(), "aurae-leak-"));
    await using stack = new AsyncDisposableStack();
    stack.defer(() => rm(directory, { recursive: true }));
    const options = { signal, directories: [directory] };
    const before = await snapshot(options);
    const plant = await planters[kind](directory, randomBytes(3).toString("hex"));
    try {
      const leaks = compare(before, await snapshot(options));
      const shown = leaks.filter((leak) => leak.kind === kind && leak.what.includes(plant.shows));
      assert.equal(shown.length, 1, `looked for ${plant.shows} in:\n${formatLeaks(leaks)}`);
    } finally {
      await plant.undo();
    }
    const left = await leaksSince(before, { ...options, settleMs: 500 });
    assert.deepEqual(
      left.filter(({ what }) => what.includes(plant.shows) || what.includes(directory)),
      [],
    );
  });
}

test("a second mount on the same place is a leak of its own", async () => {
  const directory = await mkdtemp(join(tmpdir(), "aurae-leak-"));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(directory, { recursive: true }));
  await sh("mount", "-t", "tmpfs", "aurae-leak", directory);
  stack.defer(async () => void (await sh("umount", directory)));
  const before = await snapshot({ signal, directories: [] });
  await sh("mount", "-t", "tmpfs", "aurae-leak", directory);
  stack.defer(async () => void (await sh("umount", directory)));
  const leaks = compare(before, await snapshot({ signal, directories: [] }));
  assert.equal(leaks.filter(({ kind, what }) => kind === "mount" && what.startsWith(directory)).length, 1);
});
