import { join } from "node:path";

import type { Config } from "./config/config.ts";
import type { VmOptions } from "./vm/options.ts";

/** What the daemon and `aurae-cri check` build the vm room with: the same, so that they speak of one verdict. */
export function vmOptions(config: Config, bootId: string): VmOptions {
  const { accelerator, qemuPath, guestDir, defaultMemoryBytes, defaultVcpus } = config.vm;
  return { accelerator, qemuPath, guestDir, verdictFile: join(config.root, "trial-boot.json"), defaultMemoryBytes, defaultVcpus, bootId };
}
