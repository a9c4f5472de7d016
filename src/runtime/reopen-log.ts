import { PodServiceService } from "../../api/gen/aurae/pod/v0/pod.ts";
import { getRunningContainer } from "./lookup.ts";
import type { Runtime } from "./runtime.ts";

/** After this, every new line of a RUNNING container goes to a newly opened log file. */
export async function reopenLog(runtime: Runtime, id: string, options: { readonly signal: AbortSignal }): Promise<void> {
  const container = getRunningContainer(runtime, id);
  await container.pod.agent.call(PodServiceService.reopenLog, { containerId: container.id }, options);
}
