import assert from "node:assert/strict";
import { test } from "node:test";
import { zstdCompressSync } from "node:zlib";

import { vmlinuxOf } from "./vmlinux.ts";

/** As the kernel's build puts one together: boot sector, two sectors of setup, code, the payload with its inflated length behind it. */
function bzImage(payload: Buffer): Buffer {
  const image = Buffer.alloc(3 * 512 + 1000 + payload.length + 4 + 100);
  image.writeUInt8(2, 0x1f1);
  image.write("HdrS", 0x202);
  image.writeUInt32LE(1000, 0x248);
  image.writeUInt32LE(payload.length + 4, 0x24c);
  payload.copy(image, 3 * 512 + 1000);
  return image;
}

const kernel = Buffer.concat([Buffer.from("\u007fELF"), Buffer.alloc(10_000, "kernel")]);

test("the kernel comes out as it went in", () => {
  assert.deepEqual(vmlinuxOf(bzImage(zstdCompressSync(kernel))), kernel);
});

test("what is none is refused", () => {
  assert.throws(() => vmlinuxOf(Buffer.alloc(100)), /no setup header/);
  assert.throws(() => vmlinuxOf(kernel), /no setup header/);
  assert.throws(() => vmlinuxOf(bzImage(Buffer.from("\u001f\u008bsomething else"))), /not compressed by zstd/);
  assert.throws(() => vmlinuxOf(bzImage(zstdCompressSync(Buffer.from("no ELF")))), /no ELF file/);
});
