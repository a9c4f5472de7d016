import assert from "node:assert/strict";
import { readFile, rename, stat } from "node:fs/promises";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { status } from "@grpc/grpc-js";

import { assertRefused } from "../harness/assertions.ts";
import { joinLines, parseLog } from "../harness/container.ts";
import { useNode } from "../harness/use-node.ts";
import { waitFor } from "../harness/wait.ts";

const node = useNode();

test("streams are told apart and lines keep their order and time", async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: ["/bin/sh", "-c", "echo one; echo two >&2; echo; echo three"] });
  await container.waitExited();
  const lines = await container.logLines();
  assert.deepEqual(
    lines.filter((line) => line.stream === "stdout").map((line) => [line.tag, line.text]),
    [
      ["F", "one"],
      ["F", ""],
      ["F", "three"],
    ],
  );
  assert.deepEqual(
    lines.filter((line) => line.stream === "stderr").map((line) => [line.tag, line.text]),
    [["F", "two"]],
  );
  for (const line of lines) assert.ok(Math.abs(Date.parse(line.time) - Date.now()) < 60_000);
});

test("a line above 16 KiB is split into parts; a last line without newline loses nothing", async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: ["/bin/sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x; echo; printf tail"] });
  await container.waitExited();
  const lines = await container.logLines();
  const long = lines.slice(0, lines.findIndex((line) => line.tag === "F") + 1);
  assert.ok(long.length >= 3, `${long.length} parts`);
  assert.ok(long.every((line) => line.text.length <= 16_384));
  assert.deepEqual(
    long.map((line) => line.tag),
    [...long.slice(1).map(() => "P"), "F"],
  );
  assert.equal(joinLines(long), `${"x".repeat(40_000)}\n`);
  assert.equal(
    lines
      .slice(long.length)
      .map((line) => line.text)
      .join(""),
    "tail",
  );
});

test("bytes that are no UTF-8 arrive as they are", async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: ["/bin/sh", "-c", "printf 'a\\377\\001b\\n'"] });
  await container.waitExited();
  assert.ok((await readFile(container.logPath)).includes(Buffer.from([0x61, 0xff, 0x01, 0x62, 0x0a])));
});

test("a hundred thousand lines arrive, each once", async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: ["/bin/seq", "1", "100000"] });
  await container.waitExited(30_000);
  const text = await container.logText("stdout");
  assert.equal(text, Array.from({ length: 100_000 }, (_, index) => `${index + 1}\n`).join(""));
});

test("rotation: rename, ReopenContainerLog, nothing lost or repeated", async () => {
  await using pod = await node().runPod();
  // Some 5000 lines a second: fast enough to lose some, slow enough for three rotations.
  const script = "i=0; while [ $i -lt 15000 ]; do i=$((i+1)); echo $i; [ $((i % 50)) -ne 0 ] || usleep 10000; done; sleep 100";
  const container = await pod.start({ command: ["/bin/sh", "-c", script] });
  const parts: string[] = [];
  for (let round = 0; round < 3; round++) {
    await waitFor("some lines", async () => (await stat(container.logPath)).size > 10_000);
    const rotated = `${container.logPath}.${round}`;
    await rename(container.logPath, rotated);
    if (round === 0) await node().crictl.run("logs", "--reopen", container.id);
    else await container.reopenLog();
    await stat(container.logPath);
    const content = await readFile(rotated, "utf8");
    await sleep(100);
    assert.equal((await readFile(rotated, "utf8")).length, content.length, "the renamed file stays still");
    parts.push(content);
  }
  await waitFor("the last line", async () => (await readFile(container.logPath, "utf8")).endsWith(" 15000\n"), { timeoutMs: 20_000 });
  parts.push(await readFile(container.logPath, "utf8"));
  const numbers = parts.flatMap((part) => parseLog(part)).map((line) => Number(line.text));
  assert.equal(numbers.length, 15_000);
  numbers.forEach((number, index) => assert.equal(number, index + 1));
});

test("ReopenContainerLog wants a running container", async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: ["/bin/true"] });
  await container.waitExited();
  await assertRefused(node().kind, container.reopenLog(), { code: status.FAILED_PRECONDITION, message: new RegExp(container.id) });
});

test("a container without a log path runs and is not blocked by its output", async () => {
  await using pod = await node().runPod();
  const container = await pod.start({ command: ["/bin/seq", "1", "100000"], logPath: "" });
  assert.equal((await container.waitExited()).exitCode, 0);
  assert.equal((await container.status()).logPath, "");
});

test("an empty log file exists as soon as StartContainer returns", async () => {
  await using pod = await node().runPod();
  const container = await pod.start();
  assert.equal((await stat(container.logPath)).size, 0);
});
