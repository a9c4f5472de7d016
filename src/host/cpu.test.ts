import assert from "node:assert/strict";
import { mkdtempDisposable, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { readTscKhz } from "./cpu.ts";

const table: readonly (readonly [text: string, khz: number | undefined])[] = [
  ["cpu MHz\t\t: 800.000\nflags\t\t: fpu tsc msr\nbogomips\t: 4890.81\n", 2_445_405],
  ["flags\t\t: fpu tsc\nbogomips\t: 5999.99\n\nflags\t\t: fpu tsc\nbogomips\t: 5000.00\n", 2_999_995],
  ["flags\t\t: fpu msr\nbogomips\t: 4890.81\n", undefined],
  ["Features\t: fp asimd\nBogoMIPS\t: 50.00\n", undefined],
  ["flags\t\t: tsc\nbogomips\t: 0.00\n", undefined],
  ["", undefined],
];
for (const [text, khz] of table) {
  test(`${JSON.stringify(text.slice(0, 40))} is ${khz} kHz`, async () => {
    await using dir = await mkdtempDisposable(join(tmpdir(), "cpu-test-"));
    const path = join(dir.path, "cpuinfo");
    await writeFile(path, text);
    assert.equal(await readTscKhz(path), khz);
  });
}

test("no such file is no counter", async () => {
  assert.equal(await readTscKhz("/nowhere/cpuinfo"), undefined);
});
