import { posix } from "node:path";
import type { ContainerConfig, EnvVar } from "../container-config.ts";
import { invalid } from "../errors.ts";
import type { ImageConfig } from "../ports.ts";
import { ociCapabilities } from "./capabilities.ts";
import type { HostFacts, OciSpecInput } from "./input.ts";
import type { OciProcess } from "./types.ts";

const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** `config.json`'s process: what runs, as whom and with which rights. */
export function ociProcess(input: OciSpecInput): OciProcess {
  const { container, image, user, host } = input;
  const { security, resources } = container;
  const apparmorProfile = apparmorOf(container, host);
  return {
    terminal: container.tty,
    user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
    args: argsOf(container, image),
    env: envOf(input),
    // An image may carry a relative one: it is meant from the root.
    cwd: posix.resolve("/", container.workingDir || image.workingDir),
    capabilities: ociCapabilities(security, host.capabilities),
    ...(host.rlimits.length === 0 ? {} : { rlimits: host.rlimits }),
    ...(security.noNewPrivs ? { noNewPrivileges: true as const } : {}),
    ...(apparmorProfile === "" ? {} : { apparmorProfile }),
    // Always written: without it the container would inherit auraed's, which is made to survive.
    oomScoreAdj: Math.max(resources.oomScoreAdj ?? 0, host.oomScoreAdjFloor),
  };
}

function argsOf({ command, args }: ContainerConfig, image: ImageConfig): readonly string[] {
  if (command.length > 0) return [...command, ...args];
  const all = [...image.entrypoint, ...(args.length > 0 ? args : image.cmd)];
  if (all.length === 0) throw invalid("config.command", "is empty and the image has neither Entrypoint nor Cmd: set it");
  return all;
}

/** Lowest first: our defaults, the image's, the container's. A name keeps its first place, so the order does not depend on overrides. */
function envOf({ container, image, user, hostname }: OciSpecInput): readonly string[] {
  const env = new Map([["PATH", DEFAULT_PATH]]);
  if (container.tty) env.set("TERM", "xterm");
  env.set("HOSTNAME", hostname);
  for (const line of image.env) {
    const end = line.indexOf("=");
    if (end > 0) env.set(line.slice(0, end), line.slice(end + 1));
  }
  for (const [index, variable] of container.env.entries()) env.set(variable.key, textOf(variable, index));
  if (!env.has("HOME")) env.set("HOME", user.home);
  return [...env].map(([name, value]) => `${name}=${value}`);
}

/** `config.json` is UTF-8 throughout, so other bytes cannot reach the process; changing them silently would be worse than refusing. */
function textOf(variable: EnvVar, index: number): string {
  if ("value" in variable) return variable.value;
  throw invalid(
    `config.envs[${index}].value`,
    `of ${variable.key} is not UTF-8, which the OCI runtime spec cannot hold: encode it, as base64 for example`,
  );
}

/** The profile's name; empty: none is applied. */
function apparmorOf({ security }: ContainerConfig, { apparmor }: HostFacts): string {
  const { type } = security.apparmor;
  if (apparmor === undefined) {
    if (type === "none" || type === "unconfined") return "";
    throw invalid("config.linux.security_context.apparmor", "this node's kernel has no AppArmor: use Unconfined, or a node that has it");
  }
  if (security.privileged) return "";
  switch (type) {
    case "unconfined":
      return "";
    case "localhost":
      return security.apparmor.reference;
    case "none":
    case "runtime-default":
      return apparmor.defaultProfile;
  }
}
