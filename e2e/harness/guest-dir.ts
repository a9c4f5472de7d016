import { chmod, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";

import { mustRun } from "./command.ts";
import { repositoryDir } from "./settings.ts";

/** What the build made for a microVM to boot. */
export const builtGuestDir = join(repositoryDir, "build", "guest");
export const installedQemu = "/usr/bin/qemu-system-x86_64";

/** Copies of the guest's files, and a QEMU by another name, for a test to spoil. */
export interface SpoilableParts extends AsyncDisposable {
  readonly guestDir: string;
  readonly qemuPath: string;
  /** Everything as it was made. */
  mend(): Promise<void>;
}

/** `parent`: where the files lie; /tmp when left out. */
export async function spoilableParts(parent = "/tmp"): Promise<SpoilableParts> {
  const guestDir = await mkdtemp(join(parent, "ae2e-guest-"));
  // A microVM's QEMU sees the host's programs below /usr and nowhere else.
  const qemuDir = await mkdtemp("/usr/local/lib/ae2e-qemu-");
  // Nor does it run as root.
  await chmod(qemuDir, 0o755);
  const qemuPath = join(qemuDir, "qemu");
  const parts: SpoilableParts = {
    guestDir,
    qemuPath,
    async mend() {
      await mustRun("cp", ["-a", "--sparse=always", "--remove-destination", `${builtGuestDir}/.`, guestDir]);
      await mustRun("ln", ["-sfn", installedQemu, qemuPath]);
    },
    async [Symbol.asyncDispose]() {
      for (const dir of [guestDir, qemuDir]) await rm(dir, { recursive: true, force: true });
    },
  };
  await parts.mend();
  return parts;
}
