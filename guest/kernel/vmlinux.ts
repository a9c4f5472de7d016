/**
 * vmlinux.ts BZIMAGE OUTPUT: the ELF kernel inside of a bzImage, which a machine enters by PVH without running its decompressor. For images
 * compressed by zstd, as Debian's are.
 */
import { readFile, writeFile } from "node:fs/promises";
import { zstdDecompressSync } from "node:zlib";

// The setup header (Documentation/arch/x86/boot.rst).
const SETUP_SECTORS_OFFSET = 0x1f1;
const MAGIC_OFFSET = 0x202;
const MAGIC = "HdrS";
const PAYLOAD_OFFSET_OFFSET = 0x248;
const PAYLOAD_LENGTH_OFFSET = 0x24c;
const SECTOR_BYTES = 512;

const ZSTD_MAGIC = 0xfd2fb528;
const ELF_MAGIC = "\u007fELF";
/** Behind the payload stands its length when inflated, 32 bits. */
const TRAILER_BYTES = 4;

export function vmlinuxOf(image: Buffer): Buffer {
  if (image.length < PAYLOAD_LENGTH_OFFSET + 4 || image.toString("latin1", MAGIC_OFFSET, MAGIC_OFFSET + 4) !== MAGIC) {
    throw new Error("not a bzImage: it has no setup header");
  }
  const start = (1 + image.readUInt8(SETUP_SECTORS_OFFSET)) * SECTOR_BYTES + image.readUInt32LE(PAYLOAD_OFFSET_OFFSET);
  const payload = image.subarray(start, start + image.readUInt32LE(PAYLOAD_LENGTH_OFFSET));
  if (payload.length <= TRAILER_BYTES || payload.readUInt32LE(0) !== ZSTD_MAGIC) {
    throw new Error("the kernel in the bzImage is not compressed by zstd");
  }
  const kernel = zstdDecompressSync(payload.subarray(0, -TRAILER_BYTES));
  if (kernel.toString("latin1", 0, 4) !== ELF_MAGIC) throw new Error("what the bzImage holds is no ELF file");
  return kernel;
}

if (import.meta.main) {
  const [image, output, ...rest] = process.argv.slice(2);
  if (image === undefined || output === undefined || rest.length > 0) {
    console.error("usage: vmlinux.ts BZIMAGE OUTPUT");
    process.exit(2);
  }
  await writeFile(output, vmlinuxOf(await readFile(image)));
}
