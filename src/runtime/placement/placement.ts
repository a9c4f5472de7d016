import type { VirtualizationReport } from "../ports.ts";
import type { SandboxConfig } from "../sandbox-config.ts";

/** Where a pod runs, with the reason an operator sees in status, log and metric. */
export type Placement =
  | { readonly mode: "microvm"; readonly reason: "Default" | "HandlerVm" | "PolicyVm"; readonly message: string }
  | { readonly mode: "flat"; readonly reason: FlatReason; readonly message: string };

export type FlatReason = "HandlerFlat" | "PolicyFlat" | "HostNamespace" | "Privileged" | "LateRefusal" | "NoVirtualization";

export type PlacementReason = Placement["reason"];

/** A pod that may not run here. `VirtualizationUnknown` alone is worth another try of the same call. */
export interface PlacementRefusal {
  readonly mode: "refused";
  readonly reason: "UnknownHandler" | "RequiresVirtualization" | "RequiresHost" | "VirtualizationUnknown";
  /** Names the field or the missing capability, and the remedy. */
  readonly message: string;
}

/** `placement.default`: what the empty handler means on this node. */
export type PlacementPolicy = "prefer-vm" | "require-vm" | "flat";

/** The handlers of `RuntimeClass.handler`; the empty one is the default. */
export const HANDLERS = ["", "aurae", "aurae-vm", "aurae-flat"] as const;

export interface PlacementInput {
  readonly config: SandboxConfig;
  readonly handler: string;
  readonly policy: PlacementPolicy;
  readonly virtualization: VirtualizationReport;
  /** Why an earlier attempt of the same pod (by its uid) could not run a container in a microVM; undefined: there was none. */
  readonly earlierRefusal: string | undefined;
}

/** Decides where a pod runs. Pure; the daemon logs and keeps the answer. */
export function place(input: PlacementInput): Placement | PlacementRefusal {
  const host = hostTrigger(input.config);
  switch (input.handler) {
    case "aurae-flat":
      return { mode: "flat", reason: "HandlerFlat", message: "the handler aurae-flat was requested" };
    case "aurae-vm":
      return placeInVm(input, host, { reason: "HandlerVm", asked: "runtime_handler aurae-vm" });
    case "":
    case "aurae":
      return placeByPolicy(input, host);
    default:
      return {
        mode: "refused",
        reason: "UnknownHandler",
        message: `runtime_handler '${input.handler}' is unknown: use one of '', aurae, aurae-vm, aurae-flat`,
      };
  }
}

/** Whether a pod that needs the host after all gets a flat pod at its next attempt. */
export function mayFallFlat({ handler, policy }: Pick<PlacementInput, "handler" | "policy">): boolean {
  return (handler === "" || handler === "aurae") && policy === "prefer-vm";
}

function placeByPolicy(input: PlacementInput, host: HostTrigger | undefined): Placement | PlacementRefusal {
  switch (input.policy) {
    case "flat":
      return { mode: "flat", reason: "PolicyFlat", message: "placement.default is flat" };
    case "require-vm":
      return placeInVm(input, host, { reason: "PolicyVm", asked: "placement.default require-vm" });
    case "prefer-vm":
      return host === undefined ? preferVm(input) : { mode: "flat", ...host };
  }
}

/** Known facts decide first: a pod that goes flat whatever the verdict need not wait for it. */
function preferVm({ virtualization, earlierRefusal }: PlacementInput): Placement | PlacementRefusal {
  if (earlierRefusal !== undefined) {
    return { mode: "flat", reason: "LateRefusal", message: `an earlier attempt of this pod could not run in a microVM: ${earlierRefusal}` };
  }
  switch (virtualization.state) {
    case "available":
      return { mode: "microvm", reason: "Default", message: "the default is a microVM" };
    case "unavailable":
      return { mode: "flat", reason: "NoVirtualization", message: virtualization.message };
    case "unknown":
      return undecided("runtime_handler '' needs to know whether this node can virtualize");
  }
}

interface VmDemand {
  readonly reason: "HandlerVm" | "PolicyVm";
  /** Who wants a microVM and nothing else. */
  readonly asked: string;
}

function placeInVm(input: PlacementInput, host: HostTrigger | undefined, { reason, asked }: VmDemand): Placement | PlacementRefusal {
  // Privileged is all of the guest there; the host's namespaces cannot be had from inside one.
  if (host?.reason === "HostNamespace") {
    return {
      mode: "refused",
      reason: "RequiresHost",
      message: `${asked} allows no flat pod, but ${host.message}: use runtimeClassName aurae-flat`,
    };
  }
  switch (input.virtualization.state) {
    case "available":
      return { mode: "microvm", reason, message: `${asked} was requested` };
    case "unavailable":
      return {
        mode: "refused",
        reason: "RequiresVirtualization",
        message: `${asked} needs virtualization: ${input.virtualization.message}; use runtimeClassName aurae-flat to run without it`,
      };
    case "unknown":
      return undecided(`${asked} needs virtualization`);
  }
}

/** Never flat by impatience: a pod is not to lose its isolation because it came early. */
function undecided(need: string): PlacementRefusal {
  const message = `${need}, and the trial boot has not ended yet: try again in some seconds`;
  return { mode: "refused", reason: "VirtualizationUnknown", message };
}

interface HostTrigger {
  readonly reason: "HostNamespace" | "Privileged";
  readonly message: string;
}

/** The first field of the sandbox that only the host's own kernel can satisfy. */
function hostTrigger(config: SandboxConfig): HostTrigger | undefined {
  const modes = config.namespaces;
  for (const [name, mode] of [
    ["network", modes.network],
    ["pid", modes.pid],
    ["ipc", modes.ipc],
  ] as const) {
    if (mode === "node") {
      return { reason: "HostNamespace", message: `linux.security_context.namespace_options.${name} is NODE` };
    }
  }
  if (config.privileged) return { reason: "Privileged", message: "linux.security_context.privileged is set" };
  return undefined;
}
