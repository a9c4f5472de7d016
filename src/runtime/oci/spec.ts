import { cdiHooks } from "./cdi-edits.ts";
import type { OciSpecInput } from "./input.ts";
import { ociLinux } from "./linux.ts";
import { ociMounts } from "./mounts.ts";
import { ociProcess } from "./process.ts";
import type { OciSpec } from "./types.ts";

/**
 * The OCI runtime spec of a container. Pure: everything looked up on the node comes in with the input, and nothing of an image's labels or
 * of any annotation goes out. Throws for a request that this node cannot honour.
 *
 * Sysctls are missing on purpose: they belong to the pod's namespaces, which auraed sets up once.
 */
export function buildOciSpec(input: OciSpecInput): OciSpec {
  const hooks = cdiHooks(input.cdi);
  const process = ociProcess(input);
  return {
    ociVersion: "1.2.0",
    process,
    root: { path: input.rootfsPath, readonly: input.container.security.readonlyRootfs },
    mounts: ociMounts(input),
    linux: ociLinux(input, process.capabilities.bounding),
    ...(hooks === undefined ? {} : { hooks }),
  };
}
