import { GuestServiceService } from "../../api/gen/aurae/guest/v0/guest.ts";
import { RuntimeError } from "./errors.ts";
import type { Guest } from "./guest.ts";
import { getPod, readySandbox } from "./lookup.ts";
import { type PodResources, podResources } from "./pod.ts";
import type { Pod, Runtime } from "./runtime.ts";
import type { Resources } from "./sandbox-config.ts";
import { savePod } from "./save.ts";

interface Wait {
  readonly signal: AbortSignal;
  readonly requestId: string;
}

/**
 * Gives a READY pod its new size; what is absent stays. A flat pod's cgroup is its client's, who has changed it before this call: there the
 * size is only recorded. A microVM keeps the size that it was started with: within it the pod is bound as asked, and what would need a larger
 * one is refused with `ERR_CANNOT_GROW`, nothing changed.
 */
export async function updatePod(runtime: Runtime, id: string, change: PodResources, wait: Wait): Promise<void> {
  const pod = getPod(runtime, id);
  await runtime.actions.run(pod.id, wait.signal, () => update(runtime, pod, change, wait));
}

async function update(runtime: Runtime, pod: Pod, change: PodResources, wait: Wait): Promise<void> {
  const { guest } = readySandbox(pod);
  if (guest !== undefined && change.resources !== undefined) {
    await pod.agent.call(GuestServiceService.limitPod, guestLimits(change.resources, guest), wait);
  }
  const { overhead, resources } = podResources(pod.record);
  pod.record = { ...pod.record, updated: { overhead: change.overhead ?? overhead, resources: change.resources ?? resources } };
  await savePod(runtime, pod);
}

const DEFAULT_PERIOD_US = 100_000;

/** What auraed is asked to bind the pod to. Throws `ERR_CANNOT_GROW` for what the machine does not have. */
export function guestLimits({ memoryLimitBytes, cpuQuotaUs, cpuPeriodUs = DEFAULT_PERIOD_US }: Resources, guest: Guest) {
  const roomBytes = guest.memoryBytes - (guest.guestReserveBytes ?? 0);
  if (memoryLimitBytes !== undefined && memoryLimitBytes > roomBytes) {
    throw cannotGrow(
      "resources.memory_limit_in_bytes",
      `is ${memoryLimitBytes} bytes, and the pod's microVM has ${roomBytes} for its containers`,
    );
  }
  if (cpuQuotaUs !== undefined && cpuQuotaUs > guest.vcpus * cpuPeriodUs) {
    throw cannotGrow("resources.cpu_quota", `is ${cpuQuotaUs / cpuPeriodUs} CPUs, and the pod's microVM has ${guest.vcpus}`);
  }
  return {
    memoryBytes: memoryLimitBytes === undefined ? undefined : BigInt(Math.max(0, memoryLimitBytes)),
    cpu: cpuQuotaUs === undefined ? undefined : { quotaUs: BigInt(Math.max(0, cpuQuotaUs)), periodUs: BigInt(cpuPeriodUs) },
  };
}

function cannotGrow(field: string, problem: string): RuntimeError {
  const remedy = "it cannot grow: make the pod anew, or use runtimeClassName aurae-flat";
  return new RuntimeError({ code: "ERR_CANNOT_GROW", field }, `${field}: ${problem}; ${remedy}`);
}
