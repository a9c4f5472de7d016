import type { RuntimeCondition, RuntimeFeatures, RuntimeHandler } from "../../../api/gen/cri/v1/api.ts";
import { HANDLERS } from "../../runtime/placement/placement.ts";
import type { VirtualizationReport } from "../../runtime/ports.ts";
import type { Runtime } from "../../runtime/runtime.ts";

export function encodeFeatures({ options }: Runtime): RuntimeFeatures {
  return { supplementalGroupsPolicy: true, userNamespacesHostNetwork: options.userNamespaces.supported, mountOptions: false };
}

export function encodeConditions(runtime: Runtime): RuntimeCondition[] {
  const network = runtime.network.status();
  return [
    { type: "RuntimeReady", status: true, reason: "", message: "" },
    {
      type: "NetworkReady",
      status: network.ready,
      reason: network.ready ? "" : network.reason,
      message: network.ready ? "" : network.message,
    },
    virtualizationCondition(runtime.virtualization.report()),
  ];
}

/** A condition of our own: CRI's clients show those that they do not know. */
function virtualizationCondition(report: VirtualizationReport): RuntimeCondition {
  const type = "VirtualizationAvailable";
  switch (report.state) {
    case "available":
      return { type, status: true, reason: report.accelerator === "kvm" ? "Kvm" : "SoftwareEmulation", message: report.message };
    case "unavailable":
      return { type, status: false, reason: "NoVirtualization", message: report.message };
    case "unknown":
      return { type, status: false, reason: "TrialBootUnderWay", message: "the trial boot has not ended yet" };
  }
}

/** One entry per handler that can serve a pod on this node, the default's empty name among them. No microVM is promised before the verdict. */
export function encodeHandlers(runtime: Runtime): RuntimeHandler[] {
  const { state } = runtime.virtualization.report();
  const userNamespaces = runtime.options.userNamespaces.supported;
  return HANDLERS.filter((name) => name !== "aurae-vm" || state === "available").map((name) => ({
    name,
    features: { recursiveReadOnlyMounts: true, userNamespaces },
  }));
}

/** `config` is read by scripts and by critest, which looks for `stateDir` in it. */
export function encodeStatusInfo(runtime: Runtime): { [key: string]: string } {
  const { rootDir, stateDir, bundleDir, policy, cgroupDriver } = runtime.options;
  const network = runtime.network.status();
  return {
    config: JSON.stringify({ rootDir, stateDir, bundleDir, placement: { default: policy }, cgroupDriver }),
    lastCNILoadStatus: network.ready ? "OK" : `${network.reason}: ${network.message}`,
    network: JSON.stringify(network),
    virtualization: JSON.stringify(runtime.virtualization.report()),
  };
}
