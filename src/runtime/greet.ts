import { PodServiceService } from "../../api/gen/aurae/pod/v0/pod.ts";
import { CONTRACT_VERSION } from "../agent/agent.ts";
import { AgentError } from "../agent/errors.ts";
import type { Wait } from "./realm.ts";
import type { Pod } from "./runtime.ts";

/** The first call to the auraed that runs the pod's containers: its contract must be ours. In a microVM it waits for the guest to boot. */
export async function greet(pod: Pod, wait: Wait): Promise<void> {
  const { contractVersion } = await pod.agent.call(PodServiceService.hello, { contractVersion: CONTRACT_VERSION, features: [] }, wait);
  if (contractVersion === CONTRACT_VERSION) return;
  throw new AgentError(
    { code: "ERR_AGENT_VERSION", contractVersion },
    `auraed speaks contract version ${contractVersion}, the daemon ${CONTRACT_VERSION}: install both from one release`,
  );
}
