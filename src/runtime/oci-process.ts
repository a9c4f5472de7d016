import { ociCapabilities } from "./capabilities.ts";
import type { ContainerConfig } from "./container-config.ts";
import { invalid } from "./errors.ts";
import type { SpecInput } from "./oci-spec.ts";
import type { OciProcess } from "./oci-types.ts";
import type { ImageConfig } from "./ports.ts";

const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

export function ociProcess(input: SpecInput): OciProcess {
  const { container, image, user, host } = input;
  const { security, resources } = container;
  const oomScoreAdj = resources.oomScoreAdj;
  const apparmorProfile = apparmorOf(input);
  return {
    terminal: container.tty,
    user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
    args: commandLine(container, image),
    env: environment(input),
    cwd: container.workingDir || image.workingDir || "/",
    capabilities: ociCapabilities(security.capabilities, { privileged: security.privileged, available: host.capabilities }),
    ...(oomScoreAdj === undefined ? {} : { oomScoreAdj: Math.max(oomScoreAdj, host.minOomScoreAdj) }),
    ...(security.noNewPrivs ? { noNewPrivileges: true } : {}),
    ...(apparmorProfile === "" ? {} : { apparmorProfile }),
  };
}

/** command replaces the image's entrypoint and cmd; args alone replace its cmd. */
export function commandLine({ command, args }: ContainerConfig, { entrypoint, cmd }: ImageConfig): readonly string[] {
  const line = command.length > 0 ? [...command, ...args] : [...entrypoint, ...(args.length > 0 ? args : cmd)];
  if (line.length === 0) throw invalid("config.command", "no command: neither the request nor the image has one");
  return line;
}

/** Defaults, then the image's, then the request's; a later value of a name replaces an earlier one in its place. */
function environment({ container, image, hostname }: SpecInput): readonly string[] {
  const variables = new Map<string, string>([
    ["PATH", DEFAULT_PATH],
    ["HOSTNAME", hostname],
  ]);
  if (container.tty) variables.set("TERM", "xterm");
  for (const line of image.env) {
    const equals = line.indexOf("=");
    if (equals > 0) variables.set(line.slice(0, equals), line.slice(equals + 1));
  }
  for (const variable of container.env) {
    if ("base64" in variable) throw invalid(`config.envs[${variable.key}]`, "is not valid UTF-8, which the OCI runtime specification cannot carry");
    variables.set(variable.key, variable.value);
  }
  return [...variables].map(([key, value]) => `${key}=${value}`);
}

/** Empty: no profile. */
function apparmorOf({ container, host }: SpecInput): string {
  const { apparmor, privileged } = container.security;
  if (privileged || apparmor.type === "unconfined") return "";
  if (apparmor.type === "localhost") {
    if (!host.apparmor) throw invalid("config.linux.security_context.apparmor", "asks for a profile, but AppArmor is off on this node");
    return apparmor.reference;
  }
  return "";
}
