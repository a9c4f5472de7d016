import { readMountSources } from "../../host/mount-source.ts";
import type { ContainerRecord } from "../container.ts";
import { RuntimeError } from "../errors.ts";
import { withCdi } from "../oci/cdi-edits.ts";
import type { Pod, Runtime } from "../runtime.ts";
import { savePod } from "../save.ts";
import { type LateRefusal, lateRefusal } from "./late-refusal.ts";
import { mayFallFlat } from "./placement.ts";

/** Looks at what is at the mounts' sources on the host, and answers like `lateRefusal`. For pods that are microVMs, before anything is made. */
export async function findLateRefusal({ config, cdi }: Pick<ContainerRecord, "config" | "cdi">): Promise<LateRefusal | undefined> {
  const all = withCdi(config, cdi);
  const sources = await readMountSources(all.mounts.map(({ source }) => (source.type === "host" ? source.path : undefined)));
  return lateRefusal(all, sources, cdi);
}

/**
 * Ends the attempt to run a pod in a microVM, because a container of it needs the host. Must run in the pod's queue; resolves with the
 * error that CreateContainer answers with.
 *
 * Where the pod may be flat, its sandbox becomes NOTREADY and its uid is remembered, both durably: the kubelet makes another sandbox, and
 * that one is flat. Where it may not (`aurae-vm`, `require-vm`), the sandbox stays as it is: another would fare no better.
 */
export async function applyLateRefusal(runtime: Runtime, pod: Pod, refusal: LateRefusal): Promise<RuntimeError> {
  const { handler, config } = pod.record;
  const retried = mayFallFlat({ handler, policy: runtime.options.policy }) && config.metadata.uid !== "";
  runtime.log.warn("a container cannot run in its pod's microVM", {
    podId: pod.id,
    reason: refusal.reason,
    field: refusal.field,
    message: refusal.message,
    nextAttempt: retried ? "flat" : "none",
  });
  if (retried) {
    runtime.refusals.remember(config.metadata.uid, refusal);
    pod.record = { ...pod.record, refusal };
    pod.apply({ type: "crashed", reason: "NeedsHost", message: refusal.message });
    await savePod(runtime, pod);
  }
  return new RuntimeError({ code: "ERR_PLACEMENT", reason: "NeedsHost" }, `${refusal.message}; ${remedy(retried)}`);
}

function remedy(retried: boolean): string {
  const set = "set `runtimeClassName: aurae-flat` on the pod";
  if (!retried) return `${set} to run it on the host`;
  return `the pod's next attempt runs flat. With restartPolicy Never the kubelet makes none: ${set}`;
}
