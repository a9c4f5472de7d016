import { resolvePrefix } from "../lib/ids.ts";
import { notFound, type RecordNoun, RuntimeError, wrongState } from "./errors.ts";
import type { Sandbox } from "./pod.ts";
import type { Container, Pod, Runtime } from "./runtime.ts";

/** The pod of an id or unique prefix, or undefined. An ambiguous prefix is an error. One that is still being made is nobody's to name. */
export function findPod(runtime: Runtime, idOrPrefix: string): Pod | undefined {
  const pod = find(runtime.pods, "pod sandbox", idOrPrefix);
  return pod?.record.state.phase === "creating" ? undefined : pod;
}

export function findContainer(runtime: Runtime, idOrPrefix: string): Container | undefined {
  const container = find(runtime.containers, "container", idOrPrefix);
  return container?.record.state.phase === "creating" ? undefined : container;
}

export function getPod(runtime: Runtime, idOrPrefix: string): Pod {
  const pod = findPod(runtime, idOrPrefix);
  if (pod === undefined) throw notFound("pod sandbox", idOrPrefix);
  return pod;
}

export function getContainer(runtime: Runtime, idOrPrefix: string): Container {
  const container = findContainer(runtime, idOrPrefix);
  if (container === undefined) throw notFound("container", idOrPrefix);
  return container;
}

/** The running sandbox of a pod that must be READY. */
export function readySandbox(pod: Pod): Sandbox {
  const state = pod.record.state;
  if (state.phase !== "ready") throw wrongState("pod sandbox", pod.id, state.phase, "it must be READY for this call");
  return state.sandbox;
}

/** A container that must be RUNNING. */
export function getRunningContainer(runtime: Runtime, idOrPrefix: string): Container {
  const container = getContainer(runtime, idOrPrefix);
  const { phase } = container.record.state;
  if (phase !== "running") throw wrongState("container", container.id, phase, "it must be RUNNING for this call");
  return container;
}

function find<T>(table: ReadonlyMap<string, T>, noun: RecordNoun, idOrPrefix: string): T | undefined {
  const match = resolvePrefix(table.keys(), idOrPrefix);
  switch (match.kind) {
    case "found":
      return table.get(match.id);
    case "none":
      return undefined;
    case "ambiguous":
      throw new RuntimeError(
        { code: "ERR_AMBIGUOUS_ID", noun, id: idOrPrefix },
        `${noun} id '${idOrPrefix}' is ambiguous, it begins ${match.ids.join(" and ")}: give more of it`,
      );
  }
}
