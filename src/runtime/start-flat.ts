import { chmod, chown, mkdir } from "node:fs/promises";

import { SupervisorServiceService } from "../../api/gen/aurae/supervisor/v0/supervisor.ts";
import { failpoint } from "../lib/failpoint.ts";
import { agentCgroup } from "./cgroup.ts";
import { greet } from "./greet.ts";
import type { NamespacePaths, Sandbox } from "./pod.ts";
import { podFilePaths, podFileTexts, podHostname, SHM_SIZE_BYTES, writePodFiles } from "./pod-directory.ts";
import { attachNetwork } from "./pod-network.ts";
import type { Wait } from "./realm.ts";
import { type Pod, podStateDir, type Runtime } from "./runtime.ts";
import type { UserNamespace } from "./sandbox-config.ts";
import { podPhase } from "./timeline.ts";
import { agentMappings } from "./user-namespace.ts";

/** Starts a pod on the host. What it makes is undone by the teardown list, also half made. */
export async function startFlat(runtime: Runtime, pod: Pod, wait: Wait): Promise<Sandbox> {
  const { options } = runtime;
  const { config } = pod.record;
  const dir = podStateDir(options.stateDir, pod.id);
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const auraed = await podPhase(runtime, pod, "supervisor", () => runtime.host.startAuraed(dir, "pod", wait));
  failpoint("runtime.pod.auraed.after");
  // Not before: auraed closes its directory to everybody else.
  if (config.namespaces.user !== undefined) await admitRoot(dir, config.namespaces.user);
  const namespaces = await podPhase(runtime, pod, "namespaces", () => createNamespaces(runtime, pod, wait));
  failpoint("runtime.pod.namespaces.after");
  const onHost = config.namespaces.network === "node";
  const network = onHost ? undefined : await podPhase(runtime, pod, "network", () => attachNetwork(runtime, pod, namespaces.network, wait));
  failpoint("runtime.pod.network.after");
  await podPhase(runtime, pod, "pod-files", async () =>
    writePodFiles(podFilePaths(options.stateDir, pod.id), await podFileTexts(options, config, network)),
  );
  return { auraed, namespaces, network };
}

/** Root of a user namespace is a stranger on the host, and must reach its root file systems and namespaces: nobody else is let in. */
async function admitRoot(dir: string, { gids }: UserNamespace): Promise<void> {
  await chown(dir, 0, gids.hostId);
  await chmod(dir, 0o710);
}

async function createNamespaces(runtime: Runtime, pod: Pod, wait: Wait): Promise<NamespacePaths> {
  await greet(pod, wait);
  const { config } = pod.record;
  const { namespaces } = config;
  const files = podFilePaths(runtime.options.stateDir, pod.id);
  const made = await pod.agent.call(
    SupervisorServiceService.createSandbox,
    {
      podId: pod.id,
      namespaces: {
        network: namespaces.network !== "node",
        ipc: namespaces.ipc !== "node",
        // A pod on the host's network has the host's name too.
        uts: namespaces.network !== "node",
        pid: namespaces.pid === "pod",
      },
      hostname: namespaces.network === "node" ? "" : podHostname(runtime.options, config),
      sysctls: config.sysctls,
      namespacesPath: files.namespaces,
      shmSizeBytes: namespaces.ipc === "node" ? 0n : SHM_SIZE_BYTES,
      shmPath: files.shm,
      cgroup: agentCgroup(pod.id, pod.record.cgroup),
      ...agentMappings(namespaces.user),
    },
    wait,
  );
  return { network: made.networkPath, ipc: made.ipcPath, uts: made.utsPath, pid: made.pidPath, user: made.userPath };
}
