import { PodServiceService, type PrepareContainerResponse } from "../../api/gen/aurae/pod/v0/pod.ts";
import { failpoint } from "../lib/failpoint.ts";
import { newId } from "../lib/ids.ts";
import { nowNs } from "../lib/time.ts";
import type { ContainerRecord } from "./container.ts";
import type { ContainerConfig } from "./container-config.ts";
import { checkAgainstPod, checkHostDevices, specOf } from "./container-spec.ts";
import { RuntimeError } from "./errors.ts";
import { containerFingerprint, containerName } from "./identity.ts";
import { findImageVolumes, mountImageVolumes } from "./image-volumes.ts";
import { getPod, readySandbox } from "./lookup.ts";
import { applyLateRefusal, findLateRefusal } from "./placement/apply-late-refusal.ts";
import type { Image } from "./ports.ts";
import { type Realm, realmOf, type Wait } from "./realm.ts";
import { discard } from "./remove-container.ts";
import { bundleDir, Container, type Pod, type Runtime } from "./runtime.ts";
import { saveContainer } from "./save.ts";
import { effectiveStopSignal } from "./stop-signal.ts";
import { containerPhase } from "./timeline.ts";
import { userQueryOf } from "./user-query.ts";

export interface CreateContainerRequest {
  readonly podId: string;
  readonly config: ContainerConfig;
  readonly requestId: string;
}

const ATTEMPT_TIMEOUT_MS = 120_000;

/** Creates a container whose process waits to be started; resolves to its id. On failure nothing is left behind. The identical call joins. */
export async function createContainer(
  runtime: Runtime,
  request: CreateContainerRequest,
  options: { readonly signal: AbortSignal },
): Promise<string> {
  const pod = getPod(runtime, request.podId);
  readySandbox(pod);
  const name = containerName(pod.id, request.config);
  const signal = AbortSignal.timeout(ATTEMPT_TIMEOUT_MS);
  const begin = () => runtime.actions.run(pod.id, signal, () => create(runtime, pod, request, signal));
  return runtime.containerNames.claim(name, containerFingerprint(request.config), begin, options);
}

async function create(runtime: Runtime, pod: Pod, request: CreateContainerRequest, signal: AbortSignal): Promise<string> {
  readySandbox(pod);
  const image = imageOf(runtime, request.config);
  const imageVolumes = findImageVolumes(runtime.images, request.config);
  const cdi = await runtime.cdi.resolve(request.config.cdiDevices);
  const container = new Container({ ...newRecord(pod, request.config, image), imageVolumes, cdi }, pod);
  const realm = realmOf(runtime, pod);
  checkAgainstPod(container);
  await refuseLate(runtime, container);
  pod.containers.set(container.id, container);
  runtime.containers.set(container.id, container);
  await using rollback = new AsyncDisposableStack();
  rollback.defer(() => undo(runtime, realm, container, request.requestId));
  await saveContainer(runtime, container);
  const wait = { signal, requestId: request.requestId };
  const prepared = await prepare(runtime, { realm, container, image }, wait);
  if (imageVolumes.length > 0) {
    await containerPhase(runtime, container, "image-volumes", () => mountImageVolumes(runtime.images, realm, container, wait));
  }
  failpoint("runtime.container.prepared.after");
  const pid = await containerPhase(runtime, container, "create", () =>
    createInAuraed(runtime, { realm, container, image, prepared }, wait),
  );
  failpoint("runtime.container.created.after");
  container.apply({ type: "created", pid });
  await saveContainer(runtime, container);
  rollback.move();
  return container.id;
}

/** What RunPodSandbox could not see: a container that needs the host, in a pod that is a microVM. */
async function refuseLate(runtime: Runtime, { pod, record }: Container): Promise<void> {
  if (pod.record.placement.mode === "flat") return;
  const refusal = await findLateRefusal(record);
  if (refusal?.reason === "HostDevice") await checkHostDevices(record.config);
  if (refusal !== undefined) throw await applyLateRefusal(runtime, pod, refusal);
}

function imageOf(runtime: Runtime, config: ContainerConfig): Image {
  const image = runtime.images.find(config.image);
  if (image !== undefined) return image;
  throw new RuntimeError(
    { code: "ERR_NOT_FOUND", noun: "image", id: config.image },
    `image '${config.image}' is not on this node: pull it first`,
  );
}

function newRecord(pod: Pod, config: ContainerConfig, image: Image): ContainerRecord {
  const { logDirectory } = pod.record.config;
  return {
    version: 1,
    id: newId(),
    podId: pod.id,
    config,
    imageId: image.id,
    imageRef: image.repoDigests[0] ?? image.id,
    logPath: logDirectory === "" || config.logPath === "" ? "" : `${logDirectory}/${config.logPath}`,
    stopSignal: effectiveStopSignal(config, image.config),
    user: undefined,
    createdAtNs: String(nowNs()),
    state: { phase: "creating" },
  };
}

interface Making {
  readonly realm: Realm;
  readonly container: Container;
  readonly image: Image;
}

async function prepare(runtime: Runtime, { realm, container, image }: Making, wait: Wait): Promise<PrepareContainerResponse> {
  const { config } = container.record;
  const scratch = realm.scratchPath(container);
  const lowerPaths = await containerPhase(runtime, container, "image-mount", () => realm.mountLayers(container.id, image, wait));
  failpoint("runtime.container.layers.after");
  const query = {
    containerId: container.id,
    lowerPaths: [...lowerPaths],
    scratchPath: scratch,
    rootfsPath: realm.rootfsPath(container),
    user: userQueryOf(config, image.config),
    workingDir: config.workingDir === "" ? image.config.workingDir : config.workingDir,
    imageVolumes: [...image.config.volumes],
    volumesPath: `${scratch}/volumes`,
    mountTargets: [],
  };
  const prepared = await containerPhase(runtime, container, "prepare", () =>
    container.pod.agent.call(PodServiceService.prepareContainer, query, wait),
  );
  if (prepared.user !== undefined) {
    const { uid, gid, additionalGids, home } = prepared.user;
    container.record = { ...container.record, user: { uid, gid, additionalGids, home } };
  }
  return prepared;
}

async function createInAuraed(
  runtime: Runtime,
  making: Making & { readonly prepared: PrepareContainerResponse },
  wait: Wait,
): Promise<number> {
  const { realm, container } = making;
  const { config, logPath } = container.record;
  const spec = await specOf(runtime, making, wait);
  await realm.beforeCreate(container, spec, wait);
  const { pid } = await container.pod.agent.call(
    PodServiceService.createContainer,
    {
      containerId: container.id,
      bundlePath: bundleDir(runtime.options, container.id),
      ociSpec: Buffer.from(JSON.stringify(spec)),
      io: { logPath, terminal: config.tty, stdin: config.stdin, stdinOnce: config.stdinOnce },
    },
    wait,
  );
  return pid;
}

async function undo(runtime: Runtime, realm: Realm, container: Container, requestId: string): Promise<void> {
  const wait = { signal: AbortSignal.timeout(ATTEMPT_TIMEOUT_MS), requestId };
  try {
    await container.pod.agent.call(PodServiceService.deleteContainer, { containerId: container.id }, wait);
    await realm.takeBack(container, wait);
    await discard(runtime, container, wait);
  } catch (error) {
    // The record stays in phase `creating`: the pod's teardown and the next start of the daemon try again.
    runtime.log.error("a container that could not be created could not be cleaned up", { containerId: container.id }, error);
  }
}
