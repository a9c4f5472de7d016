import { access } from "node:fs/promises";
import { join } from "node:path";

import { messageOf } from "../lib/coded-error.ts";
import type { ContainerRecord } from "../runtime/container.ts";
import { explainPod, type PodExplanation } from "../runtime/explain.ts";
import type { PodRecord } from "../runtime/pod.ts";
import { idsByAge, readHistory } from "../store/history.ts";
import { readPodRecords } from "../store/pod-records.ts";

/** `record`: the pod is still there. `history`: it is gone. */
export interface KnownPod {
  readonly source: "record" | "history";
  readonly explanation: PodExplanation;
}

export interface KnownPods {
  /** By id; a pod that is in both places is still there. */
  readonly pods: ReadonlyMap<string, KnownPod>;
  /** Files that could not be read, with the reason. */
  readonly bad: readonly string[];
}

/** Every pod of which the root directory tells, without the daemon. Throws when it cannot be looked into. */
export async function readKnownPods(rootDir: string): Promise<KnownPods> {
  const historyDir = join(rootDir, "history");
  await access(rootDir);
  const pods = new Map<string, KnownPod>();
  const bad: string[] = [];
  for (const id of await idsByAge(historyDir)) {
    try {
      pods.set(id, { source: "history", explanation: asExplanation(await readHistory(historyDir, id)) });
    } catch (error) {
      bad.push(`${join(historyDir, `${id}.json`)}: ${messageOf(error)}`);
    }
  }
  const { records, bad: badRecords } = await readPodRecords(join(rootDir, "pods"));
  for (const { pod, containers } of records) {
    // What this program wrote: told by the file's version, which was checked.
    const explanation = explainPod(pod as PodRecord, containers as readonly ContainerRecord[]);
    pods.set(pod.id, { source: "record", explanation });
  }
  return { pods, bad: [...bad, ...badRecords.map(({ path, reason }) => `${path}: ${reason}`)] };
}

/** Throws for what is not one of this release's explanations. */
export function asExplanation(value: unknown): PodExplanation {
  if (typeof value !== "object" || value === null || !("version" in value)) throw new Error("not a pod's explanation: it has no version");
  if (value.version !== 1) throw new Error(`version ${String(value.version)}, this release knows 1`);
  return value as PodExplanation;
}
