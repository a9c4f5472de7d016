import type { BootParts } from "./boot-parts.ts";
import type { GuestPart } from "./guest-files.ts";

/** A file of the guest's that is not there; tests that look at no bytes need none. */
export function testPart(name: string): GuestPart {
  return { path: `/guest/${name}`, version: "1", sizeBytes: 1, dataBytes: 1, sha256: name };
}

/** What a microVM begins with on a node that emulates. */
export const testParts: BootParts = {
  accelerator: { kind: "tcg", hostTscKhz: 2_445_406 },
  qemu: { path: "/usr/bin/qemu", version: "7.2.0", identity: "1" },
  files: {
    directory: "/guest",
    kernelRelease: "6.12",
    auraedVersion: "1",
    kernelArguments: { always: ["quiet"], tcg: ["mitigations=off"] },
    parts: { kernel: testPart("vmlinux"), system: { ...testPart("system.erofs"), sizeBytes: 2 ** 21 }, scratch: testPart("scratch.img") },
    initrd: undefined,
  },
};
