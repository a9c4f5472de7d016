import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";

import { type ConfigureResponse, GuestServiceService } from "../../api/gen/aurae/guest/v0/guest.ts";
import { SupervisorServiceService } from "../../api/gen/aurae/supervisor/v0/supervisor.ts";
import { type Interface, VmServiceService } from "../../api/gen/aurae/supervisor/v0/vm.ts";
import { withDeadline } from "../lib/abort.ts";
import { failpoint } from "../lib/failpoint.ts";
import { nowNs } from "../lib/time.ts";
import { agentCgroup, qemuCgroup } from "./cgroup.ts";
import { greet } from "./greet.ts";
import { guestOf, guestPaths } from "./guest.ts";
import type { NamespacePaths, Sandbox } from "./pod.ts";
import { podFilePaths, podFileTexts, podHostname, SHM_SIZE_BYTES } from "./pod-directory.ts";
import { attachNetwork } from "./pod-network.ts";
import type { PodNetwork } from "./ports.ts";
import type { Wait } from "./realm.ts";
import { type Pod, podRootDir, podStateDir, type Runtime } from "./runtime.ts";
import { podPhase } from "./timeline.ts";
import { agentMappings } from "./user-namespace.ts";
import { explainVm } from "./vm-status.ts";

/** A guest that boots at all answers within a second or two, under emulation on a busy host within a few more. */
const BOOT_TIMEOUT_MS = 60_000;
const ENTROPY_BYTES = 32;

/** Starts a pod as a microVM: it boots while CNI makes its network. What it makes is undone by the teardown list, also half made. */
export async function startMicrovm(runtime: Runtime, pod: Pod, wait: Wait): Promise<Sandbox> {
  const dir = podStateDir(runtime.options.stateDir, pod.id);
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const auraed = await podPhase(runtime, pod, "supervisor", () => runtime.host.startAuraed(dir, "vm", wait));
  failpoint("runtime.pod.auraed.after");
  const namespaces = await podPhase(runtime, pod, "namespaces", () => createNamespaces(runtime, pod, wait));
  failpoint("runtime.pod.namespaces.after");
  // Refuses a size that cannot be before CNI is asked for anything.
  const { size } = runtime.vmm.plan(pod.record.config);
  const uid = vmUid(pod.id);
  // Both to their end: what is undone must not be under way still.
  const [network, vmmPid] = await bothOrNeither(
    podPhase(runtime, pod, "network", () => attachNetwork(runtime, pod, namespaces.network, wait)),
    startMachine(runtime, pod, { uid, gid: uid, cgroup: qemuCgroup(runtime, pod) }, wait),
  );
  failpoint("runtime.pod.network.after");
  const { interface: nic } = await podPhase(runtime, pod, "guest-network", () => pod.agent.call(VmServiceService.attachNetwork, {}, wait));
  const answer = await podPhase(runtime, pod, "guest-setup", () => configure(runtime, pod, { network, nic }, wait));
  failpoint("runtime.vm.configured.after");
  return { auraed, namespaces, network, guest: guestOf(answer, { size, uid, vmmPid, arch: runtime.options.hostFacts.arch }) };
}

/** On the host a microVM has a network namespace, and a user namespace for its volumes' ids: the rest of the pod is in the guest. */
async function createNamespaces(runtime: Runtime, pod: Pod, wait: Wait): Promise<NamespacePaths> {
  const { networkPath, userPath } = await pod.agent.call(
    SupervisorServiceService.createSandbox,
    {
      podId: pod.id,
      namespaces: { network: true, ipc: false, uts: false, pid: false },
      hostname: "",
      sysctls: {},
      namespacesPath: podFilePaths(runtime.options.stateDir, pod.id).namespaces,
      shmSizeBytes: 0n,
      shmPath: "",
      cgroup: agentCgroup(pod.id, pod.record.cgroup),
      ...agentMappings(pod.record.config.namespaces.user),
    },
    wait,
  );
  return { network: networkPath, ipc: "", uts: "", pid: "", user: userPath };
}

/** Answers QEMU's process id. */
async function startMachine(
  runtime: Runtime,
  pod: Pod,
  owner: { readonly uid: number; readonly gid: number; readonly cgroup: string },
  wait: Wait,
): Promise<number> {
  using _turn = await podPhase(runtime, pod, "vm-turn", () => runtime.boots.take(wait.signal));
  // Of many pods that wait for their turn the later ones find the template that the first was the occasion for, or that it is gone.
  const plan = runtime.vmm.plan(pod.record.config);
  const { stateDir, rootDir } = runtime.options;
  const request = { ...plan.launch({ stateDir: podStateDir(stateDir, pod.id), rootDir: podRootDir(rootDir, pod.id) }), ...owner };
  const { pid } = await podPhase(runtime, pod, "vm-start", () => pod.agent.call(VmServiceService.startVm, request, wait));
  failpoint("runtime.vm.started.after");
  using scope = withDeadline(BOOT_TIMEOUT_MS, wait.signal);
  const within = { ...wait, signal: scope.signal };
  try {
    if (plan.restores) await podPhase(runtime, pod, "guest-restore", () => restore(runtime, pod, within));
    else await podPhase(runtime, pod, "guest-boot", () => greet(pod, within));
  } catch (error) {
    wait.signal.throwIfAborted();
    const explained = await explainVm(pod, { cause: error, restored: plan.restores }, wait);
    await plan.failed(explained.message);
    throw explained;
  }
  plan.started();
  return pid;
}

/** QEMU ends when it cannot use a saved state, some milliseconds after QMP. */
const END_TIMEOUT_MS = 2_000;

async function restore(runtime: Runtime, pod: Pod, wait: Wait): Promise<void> {
  await using machine = await runtime.vmm.connect(podStateDir(runtime.options.stateDir, pod.id), { ...wait, justStarted: true });
  try {
    await machine.restore(wait);
  } catch (error) {
    // The call ends with QEMU: then its last words are known.
    using scope = withDeadline(END_TIMEOUT_MS, wait.signal);
    await greet(pod, { ...wait, signal: scope.signal }).catch(() => {});
    throw error;
  }
  await greet(pod, wait);
}

interface Attached {
  readonly network: PodNetwork;
  readonly nic: Interface | undefined;
}

async function configure(runtime: Runtime, pod: Pod, { network, nic }: Attached, wait: Wait): Promise<ConfigureResponse> {
  const { config } = pod.record;
  const texts = await podFileTexts(runtime.options, config, network);
  const { files } = guestPaths;
  const file = (path: string, text: string) => ({ path, content: Buffer.from(text) });
  return pod.agent.call(
    GuestServiceService.configure,
    {
      podId: pod.id,
      hostname: podHostname(runtime.options, config),
      sysctls: config.sysctls,
      shmSizeBytes: SHM_SIZE_BYTES,
      sharedPid: config.namespaces.pid === "pod",
      files: [file(files.hostname, texts.hostname), file(files.hosts, texts.hosts), file(files.resolvConf, texts.resolvConf)],
      interface: nic,
      clockNs: nowNs(),
      entropy: randomBytes(ENTROPY_BYTES),
      ...agentMappings(config.namespaces.user),
    },
    wait,
  );
}

async function bothOrNeither<A, B>(first: Promise<A>, second: Promise<B>): Promise<[A, B]> {
  await Promise.allSettled([first, second]);
  return Promise.all([first, second]);
}

/** First of the users that QEMUs run as: above what distributions, systemd and subordinate ids take by default. */
const FIRST_VM_UID = 0x7000_0000;

/** A user of the pod's own: 28 bits of its random id, so that two pods of a node hardly ever share one. */
function vmUid(podId: string): number {
  return FIRST_VM_UID + Number.parseInt(podId.slice(0, 7), 16);
}
