import type { RuntimeCondition, RuntimeFeatures, RuntimeHandler } from "../../../api/gen/cri/v1/api.ts";
import { HANDLERS } from "../../runtime/placement.ts";
import type { Runtime } from "../../runtime/runtime.ts";

export const RUNTIME_FEATURES: RuntimeFeatures = {
  supplementalGroupsPolicy: true,
  userNamespacesHostNetwork: false,
  mountOptions: false,
};

export function encodeConditions(runtime: Runtime): RuntimeCondition[] {
  const network = runtime.network.status();
  const { virtualization } = runtime.options;
  return [
    { type: "RuntimeReady", status: true, reason: "", message: "" },
    {
      type: "NetworkReady",
      status: network.ready,
      reason: network.ready ? "" : network.reason,
      message: network.ready ? "" : network.message,
    },
    {
      type: "VirtualizationAvailable",
      status: virtualization.available,
      reason: virtualization.available ? "" : "NoVirtualization",
      message: virtualization.available ? "" : virtualization.message,
    },
  ];
}

/** One entry per handler that can serve a pod on this node, the default's empty name among them. */
export function encodeHandlers(runtime: Runtime): RuntimeHandler[] {
  const { virtualization } = runtime.options;
  return HANDLERS.filter((name) => name !== "aurae-vm" || virtualization.available).map((name) => ({
    name,
    features: { recursiveReadOnlyMounts: true, userNamespaces: false },
  }));
}

/** `config` is read by scripts and by critest, which looks for `stateDir` in it. */
export function encodeStatusInfo(runtime: Runtime): { [key: string]: string } {
  const { rootDir, stateDir, bundleDir, policy, cgroupDriver } = runtime.options;
  return {
    config: JSON.stringify({ rootDir, stateDir, bundleDir, placement: { default: policy }, cgroupDriver }),
    network: JSON.stringify(runtime.network.status()),
    virtualization: JSON.stringify(runtime.options.virtualization),
  };
}
