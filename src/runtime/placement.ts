import type { SandboxConfig } from "./sandbox-config.ts";

/** Where a pod runs, with the reason an operator sees in status, log and metric. */
export type Placement =
  | { readonly mode: "microvm"; readonly reason: PlacementReason; readonly message: string }
  | { readonly mode: "flat"; readonly reason: PlacementReason; readonly message: string };

export type PlacementReason = "HandlerFlat" | "PolicyFlat" | "HostNamespace" | "Privileged" | "NoVirtualization" | "Default";

/** A pod that may not run here. */
export interface PlacementRefusal {
  readonly mode: "refused";
  readonly reason: "UnknownHandler" | "RequiresVirtualization" | "RequiresHost";
  /** Names the field or the missing capability, and the remedy. */
  readonly message: string;
}

/** `placement.default`: what the empty handler means on this node. */
export type PlacementPolicy = "prefer-vm" | "require-vm" | "flat";

/** Whether this node can run microVMs, and if not, why. */
export type Virtualization = { readonly available: true } | { readonly available: false; readonly message: string };

/** The handlers of `RuntimeClass.handler`; the empty one is the default. */
export const HANDLERS = ["", "aurae", "aurae-vm", "aurae-flat"] as const;

export interface PlacementInput {
  readonly config: SandboxConfig;
  readonly handler: string;
  readonly policy: PlacementPolicy;
  readonly virtualization: Virtualization;
}

/** Decides where a pod runs. Pure; the daemon logs and keeps the answer. */
export function place(input: PlacementInput): Placement | PlacementRefusal {
  const host = hostTrigger(input.config);
  switch (input.handler) {
    case "aurae-flat":
      return { mode: "flat", reason: "HandlerFlat", message: "the handler aurae-flat was requested" };
    case "aurae-vm":
      return placeInVm(input, host);
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

function placeByPolicy(input: PlacementInput, host: HostTrigger | undefined): Placement | PlacementRefusal {
  switch (input.policy) {
    case "flat":
      return { mode: "flat", reason: "PolicyFlat", message: "placement.default is flat" };
    case "require-vm":
      return placeInVm(input, host);
    case "prefer-vm":
      if (host !== undefined) return { mode: "flat", reason: host.reason, message: host.message };
      if (!input.virtualization.available) {
        return { mode: "flat", reason: "NoVirtualization", message: input.virtualization.message };
      }
      return { mode: "microvm", reason: "Default", message: "the default is a microVM" };
  }
}

function placeInVm(input: PlacementInput, host: HostTrigger | undefined): Placement | PlacementRefusal {
  const asked = input.handler === "aurae-vm" ? "runtime_handler aurae-vm" : "placement.default require-vm";
  // Privileged is all of the guest there; the host's namespaces cannot be had from inside one.
  if (host?.reason === "HostNamespace") {
    return {
      mode: "refused",
      reason: "RequiresHost",
      message: `${asked} allows no flat pod, but ${host.message}: use runtimeClassName aurae-flat`,
    };
  }
  if (!input.virtualization.available) {
    return {
      mode: "refused",
      reason: "RequiresVirtualization",
      message: `${asked} needs virtualization: ${input.virtualization.message}; use runtimeClassName aurae-flat to run without it`,
    };
  }
  return { mode: "microvm", reason: "Default", message: `${asked} was requested` };
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
