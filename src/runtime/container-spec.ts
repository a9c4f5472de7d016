import { mkdir, readFile, realpath, stat } from "node:fs/promises";

import type { PrepareContainerResponse } from "../../api/gen/aurae/pod/v0/pod.ts";
import { containerCgroup } from "../host/cgroup-paths.ts";
import { hostDevices, resolveDevice } from "../host/devices.ts";
import { messageOf } from "../lib/coded-error.ts";
import { ociCapabilities } from "./capabilities.ts";
import type { ContainerConfig, MountRequest } from "./container-config.ts";
import { invalid, RuntimeError, wrongState } from "./errors.ts";
import { readySandbox } from "./lookup.ts";
import { buildOciSpec, type HostDevice } from "./oci-spec.ts";
import type { OciSeccomp, OciSpec } from "./oci-types.ts";
import { podFilePaths, podHostname } from "./pod-directory.ts";
import type { Image } from "./ports.ts";
import { type Container, containerStateDir, type Runtime } from "./runtime.ts";
import { parseSeccomp } from "./seccomp.ts";
import { defaultSeccomp } from "./seccomp-default.ts";

/** Looks at all that the spec of a prepared container depends on, and builds it. */
export async function specOf(runtime: Runtime, container: Container, image: Image, prepared: PrepareContainerResponse): Promise<OciSpec> {
  const { pod, record } = container;
  const { config, user } = record;
  const sandbox = readySandbox(pod);
  if (user === undefined) throw new Error(`container ${container.id} was not prepared`);
  checkAgainstPod(container);
  return buildOciSpec({
    containerId: container.id,
    container: config,
    image: image.config,
    user,
    rootfsPath: `${containerStateDir(runtime.options.stateDir, record)}/rootfs`,
    cgroupsPath: containerCgroup(pod.record.cgroup, container.id).cgroupsPath,
    hostname: podHostname(runtime.options, pod.record.config),
    podNamespaces: sandbox.namespaces,
    targetPidPath: targetPidPath(container),
    hostIpc: pod.record.config.namespaces.ipc === "node",
    files: podFilePaths(runtime.options.stateDir, pod.id),
    mountSources: await Promise.all(config.mounts.map(mountSource)),
    volumes: image.config.volumes.map((containerPath, index) => ({ containerPath, hostPath: prepared.volumePaths[index] ?? "" })),
    devices: await devicesOf(config),
    seccomp: await seccompOf(runtime, config),
    host: runtime.options.hostFacts,
  });
}

/** What a container may not ask for beyond its pod. */
function checkAgainstPod({ pod, record }: Container): void {
  const { security } = record.config;
  const field = "config.linux.security_context";
  if (security.privileged && !pod.record.config.privileged) throw invalid(`${field}.privileged`, "needs a privileged sandbox");
  for (const name of ["network", "ipc"] as const) {
    if (security.namespaces[name] !== pod.record.config.namespaces[name]) {
      throw invalid(`${field}.namespace_options.${name}`, `must be the sandbox's, ${pod.record.config.namespaces[name].toUpperCase()}`);
    }
  }
  if (security.namespaces.pid === "pod" && readySandbox(pod).namespaces.pid === "") {
    throw invalid(`${field}.namespace_options.pid`, "is POD, but the sandbox was made without a shared pid namespace");
  }
}

/** The pid namespace of another running container of the pod. */
function targetPidPath({ pod, record }: Container): string {
  const { pid, targetId } = record.config.security.namespaces;
  if (pid !== "target") return "";
  const target = pod.containers.get(targetId);
  if (target === undefined) throw invalid("config.linux.security_context.namespace_options.target_id", `${targetId} is not a container of this pod`);
  const { state } = target.record;
  if (state.phase !== "running") throw wrongState("container", target.id, state.phase, "the target of a pid namespace must be RUNNING");
  return `/proc/${state.pid}/ns/pid`;
}

/** Links in a host path are the node's own; a missing path becomes a directory, as with every other runtime. */
async function mountSource(mount: MountRequest, index: number): Promise<string> {
  const { source } = mount;
  if (source.type === "image") throw new RuntimeError({ code: "ERR_NOT_BUILT", what: "image volumes" }, `config.mounts[${index}].image: image volumes are not built yet`);
  if (mount.uidMappings.length + mount.gidMappings.length > 0) {
    throw new RuntimeError({ code: "ERR_NOT_BUILT", what: "idmapped mounts" }, `config.mounts[${index}].uid_mappings: idmapped mounts are not built yet`);
  }
  try {
    await stat(source.path);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw invalid(`config.mounts[${index}].host_path`, messageOf(error));
    await mkdir(source.path, { recursive: true, mode: 0o755 });
  }
  return realpath(source.path);
}

async function devicesOf({ devices, security }: ContainerConfig): Promise<readonly HostDevice[]> {
  const all = security.privileged ? await hostDevices("/dev") : [];
  const asked = await Promise.all(
    devices.map(async (device, index) => {
      try {
        return await resolveDevice(device);
      } catch (error) {
        throw invalid(`config.devices[${index}].host_path`, messageOf(error));
      }
    }),
  );
  const byPath = new Map([...all, ...asked.flat()].map((device) => [device.path, device]));
  return [...byPath.values()];
}

async function seccompOf(runtime: Runtime, { security }: ContainerConfig): Promise<OciSeccomp | undefined> {
  const { seccomp, privileged, capabilities } = security;
  if (privileged) return undefined;
  switch (seccomp.type) {
    case "none":
    case "unconfined":
      return undefined;
    case "runtime-default":
      return defaultSeccomp(ociCapabilities(capabilities, { privileged, available: runtime.options.hostFacts.capabilities }).bounding);
    case "localhost":
      return readProfile(seccomp.reference);
  }
}

async function readProfile(path: string): Promise<OciSeccomp> {
  const field = "config.linux.security_context.seccomp.localhost_ref";
  if (!path.startsWith("/")) throw invalid(field, `must be an absolute path, is ${JSON.stringify(path)}`);
  try {
    return parseSeccomp(JSON.parse(await readFile(path, "utf8")));
  } catch (error) {
    throw invalid(field, `${path}: ${messageOf(error)}`);
  }
}
