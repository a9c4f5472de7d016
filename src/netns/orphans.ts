import { dirname } from "node:path";
import { findByEnvironment, readPrograms, terminate } from "../host/pids.ts";

/**
 * Ends plugins that a killed daemon left running on behalf of a pod: an ADD that went on beside our DEL could take an address after
 * DEL gave it back. Only programs of the plugin directories count; a plugin may have started a service that belongs to many pods.
 */
export async function endOrphanedPlugins(
  podId: string,
  binDirs: readonly string[],
  options: { readonly signal: AbortSignal },
): Promise<void> {
  for (const identity of await findByEnvironment("CNI_CONTAINERID", podId)) {
    const programs = await readPrograms(identity.pid);
    if (programs.some((program) => binDirs.includes(dirname(program)))) await terminate(identity, options);
  }
}
