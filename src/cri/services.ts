import type { ImageServiceServer, RuntimeServiceServer } from "../../api/gen/cri/v1/api.ts";
import { type Edge, streaming, unary } from "./adapter.ts";
import { imageFsInfo } from "./image/image-fs-info.ts";
import { imageStatus } from "./image/image-status.ts";
import { listImages } from "./image/list-images.ts";
import { pullImage } from "./image/pull-image.ts";
import { removeImage } from "./image/remove-image.ts";
import { streamImages } from "./image/stream-images.ts";
import { notBuilt } from "./not-built.ts";
import { attach } from "./runtime/attach.ts";
import { containerStats } from "./runtime/container-stats.ts";
import { containerStatus } from "./runtime/container-status.ts";
import { createContainer } from "./runtime/create-container.ts";
import { exec } from "./runtime/exec.ts";
import { execSync } from "./runtime/exec-sync.ts";
import { getContainerEvents } from "./runtime/get-container-events.ts";
import { listContainerStats } from "./runtime/list-container-stats.ts";
import { listContainers } from "./runtime/list-containers.ts";
import { listMetricDescriptors } from "./runtime/list-metric-descriptors.ts";
import { listPodSandbox } from "./runtime/list-pod-sandbox.ts";
import { listPodSandboxMetrics } from "./runtime/list-pod-sandbox-metrics.ts";
import { listPodSandboxStats } from "./runtime/list-pod-sandbox-stats.ts";
import { podSandboxStats } from "./runtime/pod-sandbox-stats.ts";
import { podSandboxStatus } from "./runtime/pod-sandbox-status.ts";
import { portForward } from "./runtime/port-forward.ts";
import { removeContainer } from "./runtime/remove-container.ts";
import { removePodSandbox } from "./runtime/remove-pod-sandbox.ts";
import { reopenContainerLog } from "./runtime/reopen-container-log.ts";
import { runPodSandbox } from "./runtime/run-pod-sandbox.ts";
import { runtimeConfig } from "./runtime/runtime-config.ts";
import { startContainer } from "./runtime/start-container.ts";
import { status } from "./runtime/status.ts";
import { stopContainer } from "./runtime/stop-container.ts";
import { stopPodSandbox } from "./runtime/stop-pod-sandbox.ts";
import { streamContainerStats } from "./runtime/stream-container-stats.ts";
import { streamContainers } from "./runtime/stream-containers.ts";
import { streamPodSandboxMetrics } from "./runtime/stream-pod-sandbox-metrics.ts";
import { streamPodSandboxStats } from "./runtime/stream-pod-sandbox-stats.ts";
import { streamPodSandboxes } from "./runtime/stream-pod-sandboxes.ts";
import { updateContainerResources } from "./runtime/update-container-resources.ts";
import { updatePodSandboxResources } from "./runtime/update-pod-sandbox-resources.ts";
import { updateRuntimeConfig } from "./runtime/update-runtime-config.ts";
import { version } from "./runtime/version.ts";

/** Every RPC of `runtime.v1.RuntimeService`; the compiler refuses one that is missing. */
export function runtimeService(edge: Edge): RuntimeServiceServer {
  return {
    version: unary(edge, "Version", version),
    runPodSandbox: unary(edge, "RunPodSandbox", runPodSandbox),
    stopPodSandbox: unary(edge, "StopPodSandbox", stopPodSandbox),
    removePodSandbox: unary(edge, "RemovePodSandbox", removePodSandbox),
    podSandboxStatus: unary(edge, "PodSandboxStatus", podSandboxStatus),
    listPodSandbox: unary(edge, "ListPodSandbox", listPodSandbox),
    streamPodSandboxes: streaming(edge, "StreamPodSandboxes", streamPodSandboxes),
    createContainer: unary(edge, "CreateContainer", createContainer),
    startContainer: unary(edge, "StartContainer", startContainer),
    stopContainer: unary(edge, "StopContainer", stopContainer),
    removeContainer: unary(edge, "RemoveContainer", removeContainer),
    listContainers: unary(edge, "ListContainers", listContainers),
    streamContainers: streaming(edge, "StreamContainers", streamContainers),
    containerStatus: unary(edge, "ContainerStatus", containerStatus),
    updateContainerResources: unary(edge, "UpdateContainerResources", updateContainerResources),
    reopenContainerLog: unary(edge, "ReopenContainerLog", reopenContainerLog),
    execSync: unary(edge, "ExecSync", execSync),
    exec: unary(edge, "Exec", exec),
    attach: unary(edge, "Attach", attach),
    portForward: unary(edge, "PortForward", portForward),
    containerStats: unary(edge, "ContainerStats", containerStats),
    listContainerStats: unary(edge, "ListContainerStats", listContainerStats),
    streamContainerStats: streaming(edge, "StreamContainerStats", streamContainerStats),
    podSandboxStats: unary(edge, "PodSandboxStats", podSandboxStats),
    listPodSandboxStats: unary(edge, "ListPodSandboxStats", listPodSandboxStats),
    streamPodSandboxStats: streaming(edge, "StreamPodSandboxStats", streamPodSandboxStats),
    updateRuntimeConfig: unary(edge, "UpdateRuntimeConfig", updateRuntimeConfig),
    status: unary(edge, "Status", status),
    checkpointContainer: unary(edge, "CheckpointContainer", notBuilt("CheckpointContainer")),
    checkpointPod: unary(edge, "CheckpointPod", notBuilt("CheckpointPod")),
    restorePod: unary(edge, "RestorePod", notBuilt("RestorePod")),
    getContainerEvents: streaming(edge, "GetContainerEvents", getContainerEvents),
    listMetricDescriptors: unary(edge, "ListMetricDescriptors", listMetricDescriptors),
    listPodSandboxMetrics: unary(edge, "ListPodSandboxMetrics", listPodSandboxMetrics),
    streamPodSandboxMetrics: streaming(edge, "StreamPodSandboxMetrics", streamPodSandboxMetrics),
    runtimeConfig: unary(edge, "RuntimeConfig", runtimeConfig),
    updatePodSandboxResources: unary(edge, "UpdatePodSandboxResources", updatePodSandboxResources),
  };
}

/** Every RPC of `runtime.v1.ImageService`. */
export function imageService(edge: Edge): ImageServiceServer {
  return {
    listImages: unary(edge, "ListImages", listImages),
    streamImages: streaming(edge, "StreamImages", streamImages),
    imageStatus: unary(edge, "ImageStatus", imageStatus),
    pullImage: unary(edge, "PullImage", pullImage),
    removeImage: unary(edge, "RemoveImage", removeImage),
    imageFsInfo: unary(edge, "ImageFsInfo", imageFsInfo),
  };
}
