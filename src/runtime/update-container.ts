import { PodServiceService } from "../../api/gen/aurae/pod/v0/pod.ts";
import { wrongState } from "./errors.ts";
import { getContainer } from "./lookup.ts";
import { ociResources } from "./oci/linux.ts";
import { realmOf } from "./realm.ts";
import type { Container, Runtime } from "./runtime.ts";
import type { Resources } from "./sandbox-config.ts";
import { saveContainer } from "./save.ts";

/** Changes the limits of a CREATED or RUNNING container; what is absent stays. The cgroup, the record and the status agree afterwards. */
export async function updateContainer(
  runtime: Runtime,
  id: string,
  resources: Resources,
  options: { readonly signal: AbortSignal },
): Promise<void> {
  const container = getContainer(runtime, id);
  await runtime.actions.run(container.pod.id, options.signal, () => update(runtime, container, resources, options));
}

async function update(
  runtime: Runtime,
  container: Container,
  resources: Resources,
  options: { readonly signal: AbortSignal },
): Promise<void> {
  const { phase } = container.record.state;
  if (phase !== "created" && phase !== "running")
    throw wrongState("container", container.id, phase, "only a CREATED or RUNNING container has resources");
  const ociJson = Buffer.from(JSON.stringify(ociResources(resources, realmOf(runtime, container.pod).facts)));
  await container.pod.agent.call(PodServiceService.updateContainer, { containerId: container.id, ociResources: ociJson }, options);
  container.record = {
    ...container.record,
    config: { ...container.record.config, resources: { ...container.record.config.resources, ...resources } },
  };
  await saveContainer(runtime, container);
}
