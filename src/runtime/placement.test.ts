import assert from "node:assert/strict";
import { suite, test } from "node:test";

import { type PlacementPolicy, place, type Virtualization } from "./placement.ts";
import type { NamespaceModes, SandboxConfig } from "./sandbox-config.ts";

const AVAILABLE: Virtualization = { available: true };
const MISSING: Virtualization = { available: false, message: "no /dev/kvm" };

interface Case {
  readonly id: string;
  readonly handler: string;
  readonly policy: PlacementPolicy;
  readonly virtualization: Virtualization;
  readonly namespaces?: Partial<NamespaceModes>;
  readonly privileged?: boolean;
  readonly want: readonly [mode: string, reason: string];
}

const CASES: readonly Case[] = [
  { id: "default prefers a microVM", handler: "", policy: "prefer-vm", virtualization: AVAILABLE, want: ["microvm", "Default"] },
  { id: "aurae is the default by name", handler: "aurae", policy: "prefer-vm", virtualization: AVAILABLE, want: ["microvm", "Default"] },
  { id: "no virtualization", handler: "", policy: "prefer-vm", virtualization: MISSING, want: ["flat", "NoVirtualization"] },
  {
    id: "host network",
    handler: "",
    policy: "prefer-vm",
    virtualization: AVAILABLE,
    namespaces: { network: "node" },
    want: ["flat", "HostNamespace"],
  },
  {
    id: "host pid",
    handler: "",
    policy: "prefer-vm",
    virtualization: AVAILABLE,
    namespaces: { pid: "node" },
    want: ["flat", "HostNamespace"],
  },
  {
    id: "host ipc",
    handler: "",
    policy: "prefer-vm",
    virtualization: AVAILABLE,
    namespaces: { ipc: "node" },
    want: ["flat", "HostNamespace"],
  },
  { id: "privileged", handler: "", policy: "prefer-vm", virtualization: AVAILABLE, privileged: true, want: ["flat", "Privileged"] },
  { id: "policy flat", handler: "", policy: "flat", virtualization: AVAILABLE, want: ["flat", "PolicyFlat"] },
  { id: "policy require-vm", handler: "", policy: "require-vm", virtualization: AVAILABLE, want: ["microvm", "Default"] },
  {
    id: "policy require-vm without virtualization",
    handler: "",
    policy: "require-vm",
    virtualization: MISSING,
    want: ["refused", "RequiresVirtualization"],
  },
  {
    id: "policy require-vm never downgrades a host pod",
    handler: "aurae",
    policy: "require-vm",
    virtualization: AVAILABLE,
    namespaces: { network: "node" },
    want: ["refused", "RequiresHost"],
  },
  { id: "aurae-flat", handler: "aurae-flat", policy: "require-vm", virtualization: AVAILABLE, want: ["flat", "HandlerFlat"] },
  { id: "aurae-vm", handler: "aurae-vm", policy: "flat", virtualization: AVAILABLE, want: ["microvm", "Default"] },
  {
    id: "aurae-vm privileged is all of the guest",
    handler: "aurae-vm",
    policy: "flat",
    virtualization: AVAILABLE,
    privileged: true,
    want: ["microvm", "Default"],
  },
  {
    id: "aurae-vm without virtualization",
    handler: "aurae-vm",
    policy: "flat",
    virtualization: MISSING,
    want: ["refused", "RequiresVirtualization"],
  },
  {
    id: "aurae-vm on the host's ipc",
    handler: "aurae-vm",
    policy: "flat",
    virtualization: AVAILABLE,
    namespaces: { ipc: "node" },
    want: ["refused", "RequiresHost"],
  },
  { id: "unknown handler", handler: "kata", policy: "prefer-vm", virtualization: AVAILABLE, want: ["refused", "UnknownHandler"] },
];

suite("placement", () => {
  for (const { id, want, namespaces, privileged = false, ...input } of CASES) {
    test(id, () => {
      const { mode, reason, message } = place({ ...input, config: sandbox({ ...namespaces }, privileged) });
      assert.deepEqual([mode, reason], want);
      assert.notEqual(message, "");
    });
  }

  test("a refusal names the remedy", () => {
    const refusal = place({ handler: "aurae-vm", policy: "prefer-vm", virtualization: MISSING, config: sandbox({}, false) });
    assert.match(refusal.message, /no \/dev\/kvm/);
    assert.match(refusal.message, /aurae-flat/);
  });
});

function sandbox(namespaces: Partial<NamespaceModes>, privileged: boolean): SandboxConfig {
  return {
    metadata: { name: "p", uid: "u", namespace: "n", attempt: 0 },
    hostname: "",
    logDirectory: "",
    dns: undefined,
    portMappings: [],
    labels: {},
    annotations: {},
    cgroupParent: "",
    sysctls: {},
    namespaces: { network: "pod", pid: "container", ipc: "pod", targetId: "", user: undefined, ...namespaces },
    privileged,
    seccomp: { type: "none" },
    apparmor: { type: "none" },
    selinux: undefined,
    runAsUser: undefined,
    runAsGroup: undefined,
    supplementalGroups: [],
    supplementalGroupsPolicy: "merge",
    readonlyRootfs: false,
    overhead: undefined,
    resources: undefined,
  };
}
