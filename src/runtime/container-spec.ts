import { readFile } from "node:fs/promises";
import type { PrepareContainerResponse } from "../../api/gen/aurae/pod/v0/pod.ts";
import type { DeviceNode } from "../host/devices.ts";
import { readDevice } from "../host/devices.ts";
import { messageOf } from "../lib/coded-error.ts";
import type { ContainerConfig } from "./container-config.ts";
import { invalid, wrongState } from "./errors.ts";
import { withCdi, withCdiGroups, withCdiNodes } from "./oci/cdi-edits.ts";
import { buildOciSpec } from "./oci/spec.ts";
import type { OciSpec } from "./oci/types.ts";
import { podHostname } from "./pod-directory.ts";
import type { Image } from "./ports.ts";
import type { Realm, Wait } from "./realm.ts";
import type { Container, Runtime } from "./runtime.ts";
import { checkContainerUserNamespace } from "./user-namespace.ts";

const SECURITY = "config.linux.security_context";

/** Looks at all that the spec of a prepared container depends on, and builds it. */
export async function specOf(
  runtime: Runtime,
  {
    realm,
    container,
    image,
    prepared,
  }: { readonly realm: Realm; readonly container: Container; readonly image: Image; readonly prepared: PrepareContainerResponse },
  wait: Wait,
): Promise<OciSpec> {
  const { pod, record } = container;
  const { user, cdi } = record;
  const config = withCdi(record.config, cdi);
  if (user === undefined) throw new Error(`container ${container.id} was not prepared`);
  return buildOciSpec({
    sandbox: pod.record.config,
    container: config,
    image: image.config,
    user: withCdiGroups(user, cdi),
    hostname: podHostname(runtime.options, pod.record.config),
    rootfsPath: realm.rootfsPath(container),
    namespaces: realm.namespaces,
    targetPidPath: targetPidPath(container),
    cgroupsPath: realm.cgroupsPath(container),
    podFiles: realm.files,
    mountSources: await realm.mountSources(container, wait),
    imageVolumes: image.config.volumes.map((containerPath, index) => ({ containerPath, sourcePath: prepared.volumePaths[index] ?? "" })),
    devices: withCdiNodes(await requestedDevices(config, realm), cdi, user),
    cdi,
    hostDevices: config.security.privileged ? await realm.devices() : [],
    seccompProfile: await readProfile(config),
    host: realm.facts,
  });
}

/** Refuses what a container may not ask for beyond its pod, before anything is made. */
export function checkAgainstPod(container: Container): void {
  const { pod, record } = container;
  checkTarget(container);
  const { security } = record.config;
  if (security.privileged && !pod.record.config.privileged) throw invalid(`${SECURITY}.privileged`, "needs a privileged sandbox");
  for (const name of ["network", "ipc", "pid"] as const) {
    // POD is what a client sends that sends nothing: "as the sandbox".
    if (security.namespaces[name] === "node" && pod.record.config.namespaces[name] !== "node") {
      throw invalid(`${SECURITY}.namespace_options.${name}`, "is NODE, but the sandbox's is not");
    }
  }
  checkContainerUserNamespace(record.config, pod.record.config);
}

/** Of the container whose pid namespace is joined; it must be of the same pod, and run. */
function targetPidPath(container: Container): string | undefined {
  const target = checkTarget(container);
  return target === undefined ? undefined : `/proc/${target.pid}/ns/pid`;
}

/** The running state of the container whose pid namespace this one shares; undefined when it shares none. */
export function checkTarget({ pod, record }: Container): { readonly pid: number } | undefined {
  const { pid, targetId } = record.config.security.namespaces;
  if (pid !== "target") return undefined;
  const target = pod.containers.get(targetId);
  if (target === undefined) throw invalid(`${SECURITY}.namespace_options.target_id`, `${targetId} is not a container of this pod`);
  const { state } = target.record;
  if (state.phase !== "running") throw wrongState("container", target.id, state.phase, "the target of a pid namespace must be RUNNING");
  return state;
}

/** Throws `ERR_INVALID` for a device that the node does not have: no placement would help. */
export async function checkHostDevices(config: ContainerConfig): Promise<void> {
  await requestedDevices(config, { device: readDevice });
}

async function requestedDevices({ devices }: ContainerConfig, realm: Pick<Realm, "device">): Promise<readonly DeviceNode[]> {
  const nodes = await Promise.all(
    devices.map(async (device, index) => {
      try {
        return await realm.device(device);
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
