import { mkdir, readFile, realpath, stat } from "node:fs/promises";

import type { PrepareContainerResponse } from "../../api/gen/aurae/pod/v0/pod.ts";
import { containerCgroup } from "../host/cgroup-paths.ts";
import { listDevices, readDevice } from "../host/devices.ts";
import { mountOf, readMountinfo } from "../host/mountinfo.ts";
import { messageOf } from "../lib/coded-error.ts";
import type { ContainerConfig, MountRequest } from "./container-config.ts";
import { invalid, RuntimeError, wrongState } from "./errors.ts";
import { readySandbox } from "./lookup.ts";
import type { DeviceNode } from "./oci-input.ts";
import { buildOciSpec } from "./oci-spec.ts";
import type { OciSpec } from "./oci-types.ts";
import { podFilePaths, podHostname } from "./pod-directory.ts";
import type { Image } from "./ports.ts";
import { type Container, containerStateDir, type Runtime } from "./runtime.ts";

const SECURITY = "config.linux.security_context";

/** Looks at all that the spec of a prepared container depends on, and builds it. */
export async function specOf(runtime: Runtime, container: Container, image: Image, prepared: PrepareContainerResponse): Promise<OciSpec> {
  const { pod, record } = container;
  const { config, user } = record;
  if (user === undefined) throw new Error(`container ${container.id} was not prepared`);
  return buildOciSpec({
    sandbox: pod.record.config,
    container: config,
    image: image.config,
    user,
    hostname: podHostname(runtime.options, pod.record.config),
    rootfsPath: `${containerStateDir(runtime.options.stateDir, record)}/rootfs`,
    namespaces: readySandbox(pod).namespaces,
    targetPidPath: targetPidPath(container),
    cgroupsPath: containerCgroup(pod.record.cgroup, container.id).cgroupsPath,
    podFiles: podFilePaths(runtime.options.stateDir, pod.id),
    mountSources: await mountSources(config),
    imageVolumes: image.config.volumes.map((containerPath, index) => ({ containerPath, sourcePath: prepared.volumePaths[index] ?? "" })),
    devices: await requestedDevices(config),
    hostDevices: config.security.privileged ? await listDevices("/dev") : [],
    seccompProfile: await readProfile(config),
    host: runtime.options.hostFacts,
  });
}

/** Refuses what a container may not ask for beyond its pod, before anything is made. */
export function checkAgainstPod({ pod, record }: Container): void {
  const { security } = record.config;
  if (security.privileged && !pod.record.config.privileged) throw invalid(`${SECURITY}.privileged`, "needs a privileged sandbox");
  for (const name of ["network", "ipc", "pid"] as const) {
    // POD is what a client sends that sends nothing: "as the sandbox".
    if (security.namespaces[name] === "node" && pod.record.config.namespaces[name] !== "node") {
      throw invalid(`${SECURITY}.namespace_options.${name}`, "is NODE, but the sandbox's is not");
    }
  }
}

/** The pid namespace of another running container of the pod. */
function targetPidPath({ pod, record }: Container): string | undefined {
  const { pid, targetId } = record.config.security.namespaces;
  if (pid !== "target") return undefined;
  const target = pod.containers.get(targetId);
  if (target === undefined) throw invalid(`${SECURITY}.namespace_options.target_id`, `${targetId} is not a container of this pod`);
  const { state } = target.record;
  if (state.phase !== "running") throw wrongState("container", target.id, state.phase, "the target of a pid namespace must be RUNNING");
  return `/proc/${state.pid}/ns/pid`;
}

async function mountSources({ mounts }: ContainerConfig): Promise<readonly string[]> {
  const sources = await Promise.all(mounts.map(mountSource));
  if (mounts.some(({ propagation }) => propagation !== "private")) await checkPropagation(mounts, sources);
  return sources;
}

/** A mount passes on only what the host's mount above its source shares: without that the request would be met in word alone. */
async function checkPropagation(mounts: readonly MountRequest[], sources: readonly string[]): Promise<void> {
  const table = await readMountinfo();
  for (const [index, { propagation }] of mounts.entries()) {
    if (propagation === "private") continue;
    const source = sources[index] ?? "";
    const above = mountOf(table, source);
    const shared = above?.propagation.some((tag) => tag.startsWith("shared:")) ?? false;
    const slave = above?.propagation.some((tag) => tag.startsWith("master:")) ?? false;
    if (shared || (slave && propagation === "host-to-container")) continue;
    const remedy = `make it shared with 'mount --make-rshared ${above?.mountPoint ?? source}'`;
    throw invalid(
      `config.mounts[${index}].propagation`,
      `${source} lies on a private mount of this node, which propagates nothing: ${remedy}`,
    );
  }
}

/** Links in a host path are the node's own; a missing path becomes a directory, as with every other runtime. */
async function mountSource(mount: MountRequest, index: number): Promise<string> {
  const field = `config.mounts[${index}]`;
  const { source } = mount;
  if (source.type === "image")
    throw new RuntimeError({ code: "ERR_NOT_BUILT", what: "image volumes" }, `${field}.image: image volumes are not built yet`);
  if (mount.uidMappings.length + mount.gidMappings.length > 0) {
    throw new RuntimeError({ code: "ERR_NOT_BUILT", what: "idmapped mounts" }, `${field}.uid_mappings: idmapped mounts are not built yet`);
  }
  try {
    await stat(source.path);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw invalid(`${field}.host_path`, messageOf(error));
    await mkdir(source.path, { recursive: true, mode: 0o755 });
  }
  return realpath(source.path);
}

async function requestedDevices({ devices }: ContainerConfig): Promise<readonly DeviceNode[]> {
  const nodes = await Promise.all(
    devices.map(async (device, index) => {
      try {
        return await readDevice(device);
      } catch (error) {
        throw invalid(`config.devices[${index}].host_path`, messageOf(error));
      }
    }),
  );
  return nodes.flat();
}

/** Text of a localhost seccomp profile. */
async function readProfile({ security }: ContainerConfig): Promise<string | undefined> {
  if (security.seccomp.type !== "localhost" || security.privileged) return undefined;
  const path = security.seccomp.reference;
  const field = `${SECURITY}.seccomp.localhost_ref`;
  if (!path.startsWith("/")) throw invalid(field, `must be an absolute path, is ${JSON.stringify(path)}`);
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw invalid(field, messageOf(error));
  }
}
