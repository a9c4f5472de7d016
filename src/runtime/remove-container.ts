import { PodServiceService } from "../../api/gen/aurae/pod/v0/pod.ts";
import { layerClaimsOf } from "./image-volumes.ts";
import { findContainer } from "./lookup.ts";
import { sandboxOf } from "./pod.ts";
import { realmOf } from "./realm.ts";
import { bundleDir, type Container, containerScratchDir, containerStateDir, type Runtime } from "./runtime.ts";
import { forgetContainer } from "./save.ts";
import { killContainer } from "./stop-container.ts";

/** Kills what still runs and removes every trace but the log. An unknown container is success. */
export async function removeContainer(runtime: Runtime, id: string, options: { readonly signal: AbortSignal }): Promise<void> {
  const container = findContainer(runtime, id);
  if (container === undefined) return;
  await runtime.actions.run(container.pod.id, options.signal, () => remove(runtime, container, options));
}

/** Must run in the pod's queue. */
export async function remove(runtime: Runtime, container: Container, options: { readonly signal: AbortSignal }): Promise<void> {
  if (!runtime.containers.has(container.id)) return;
  if (isSupervised(runtime, container)) {
    if (container.record.state.phase !== "exited" && container.record.state.phase !== "creating") await killContainer(container, options);
    await container.pod.agent.call(PodServiceService.deleteContainer, { containerId: container.id }, options);
    await realmOf(runtime, container.pod).takeBack(container, options);
  }
  await discard(runtime, container, options);
}

/** Gives back what a container that no auraed knows any more holds on the node, then its record and its name. */
export async function discard(runtime: Runtime, container: Container, options: { readonly signal: AbortSignal }): Promise<void> {
  const { rootDir, stateDir } = runtime.options;
  for (const [owner] of layerClaimsOf(container.record)) await runtime.images.releaseLayers(owner);
  await runtime.host.removeTree(bundleDir(runtime.options, container.id), options);
  await runtime.host.removeTree(containerStateDir(stateDir, container.record), options);
  await runtime.host.removeTree(containerScratchDir(rootDir, container.record), options);
  container.pod.containers.delete(container.id);
  await forgetContainer(runtime, container);
}

function isSupervised(runtime: Runtime, container: Container): boolean {
  const { state } = container.pod.record;
  const auraed = sandboxOf(state)?.auraed;
  return state.phase === "ready" && auraed !== undefined && runtime.host.isAlive(auraed);
}
