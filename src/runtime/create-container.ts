import { PodServiceService, type PrepareContainerResponse } from "../../api/gen/aurae/pod/v0/pod.ts";
import { failpoint } from "../lib/failpoint.ts";
import { newId } from "../lib/ids.ts";
import { nowNs } from "../lib/time.ts";
import type { ContainerRecord } from "./container.ts";
import type { ContainerConfig } from "./container-config.ts";
import { checkAgainstPod, specOf } from "./container-spec.ts";
import { RuntimeError } from "./errors.ts";
import { containerFingerprint, containerName } from "./identity.ts";
import { getPod, readySandbox } from "./lookup.ts";
import type { Image } from "./ports.ts";
import { discard } from "./remove-container.ts";
import { bundleDir, Container, containerScratchDir, containerStateDir, type Pod, type Runtime } from "./runtime.ts";
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
  const container = new Container(newRecord(pod, request.config, image), pod);
  checkAgainstPod(container);
  pod.containers.set(container.id, container);
  runtime.containers.set(container.id, container);
  await using rollback = new AsyncDisposableStack();
  rollback.defer(() => undo(runtime, container, request.requestId));
  await saveContainer(runtime, container);
  const prepared = await prepare(runtime, container, image, request.requestId, signal);
  failpoint("runtime.container.prepared.after");
  const pid = await containerPhase(runtime, container, "create", () =>
    createInAuraed(runtime, container, image, prepared, request.requestId, signal),
  );
  failpoint("runtime.container.created.after");
  container.apply({ type: "created", pid });
  await saveContainer(runtime, container);
  rollback.move();
  return container.id;
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

async function prepare(
  runtime: Runtime,
  container: Container,
  image: Image,
  requestId: string,
  signal: AbortSignal,
): Promise<PrepareContainerResponse> {
  const { rootDir, stateDir } = runtime.options;
  const { config } = container.record;
  const scratch = containerScratchDir(rootDir, container.record);
  const mountLayers = () => runtime.images.mountLayers(image.id, container.id, { signal });
  const lowerPaths = await containerPhase(runtime, container, "image-mount", mountLayers);
  failpoint("runtime.container.layers.after");
  const query = {
    containerId: container.id,
    lowerPaths: [...lowerPaths],
    scratchPath: scratch,
    rootfsPath: `${containerStateDir(stateDir, container.record)}/rootfs`,
    user: userQueryOf(config, image.config),
    workingDir: config.workingDir === "" ? image.config.workingDir : config.workingDir,
    imageVolumes: [...image.config.volumes],
    volumesPath: `${scratch}/volumes`,
    mountTargets: [],
  };
  const prepared = await containerPhase(runtime, container, "prepare", () =>
    container.pod.agent.call(PodServiceService.prepareContainer, query, { signal, requestId }),
  );
  if (prepared.user !== undefined) {
    const { uid, gid, additionalGids, home } = prepared.user;
    container.record = { ...container.record, user: { uid, gid, additionalGids, home } };
  }
  return prepared;
}

async function createInAuraed(
  runtime: Runtime,
  container: Container,
  image: Image,
  prepared: PrepareContainerResponse,
  requestId: string,
  signal: AbortSignal,
): Promise<number> {
  const { config } = container.record;
  const spec = await specOf(runtime, container, image, prepared);
  const { pid } = await container.pod.agent.call(
    PodServiceService.createContainer,
    {
      containerId: container.id,
      bundlePath: bundleDir(runtime.options, container.id),
      ociSpec: Buffer.from(JSON.stringify(spec)),
      io: { logPath: container.record.logPath, terminal: config.tty, stdin: config.stdin, stdinOnce: config.stdinOnce },
    },
    { signal, requestId },
  );
  return pid;
}

async function undo(runtime: Runtime, container: Container, requestId: string): Promise<void> {
  const signal = AbortSignal.timeout(ATTEMPT_TIMEOUT_MS);
  try {
    await container.pod.agent.call(PodServiceService.deleteContainer, { containerId: container.id }, { signal, requestId });
    await discard(runtime, container, { signal });
  } catch (error) {
    // The record stays in phase `creating`: the pod's teardown and the next start of the daemon try again.
    runtime.log.error("a container that could not be created could not be cleaned up", { containerId: container.id }, error);
  }
}
