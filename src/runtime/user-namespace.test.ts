import assert from "node:assert/strict";
import { describe, it } from "node:test";

import type { ContainerConfig, MountRequest } from "./container-config.ts";
import { RuntimeError } from "./errors.ts";
import { container, hostMount, podNetworking, sandbox } from "./oci/test-input.ts";
import type { SandboxConfig, UserNamespace } from "./sandbox-config.ts";
import { agentMappings, checkContainerUserNamespace, checkPodUserNamespace } from "./user-namespace.ts";

const line = { containerId: 0, hostId: 100_000, length: 65_536 };
const user: UserNamespace = { uids: line, gids: line };

function podWith(namespaces: Partial<SandboxConfig["namespaces"]>, changes: Partial<SandboxConfig> = {}): SandboxConfig {
  return { ...sandbox, ...changes, namespaces: { ...podNetworking, ...namespaces } };
}

function containerWith(users: UserNamespace | undefined, mounts: readonly MountRequest[] = []): ContainerConfig {
  return { ...container, mounts, security: { ...container.security, namespaces: { ...podNetworking, user: users } } };
}

function refused(field: string, check: () => void): void {
  assert.throws(check, (error) => error instanceof RuntimeError && error.fact.code === "ERR_INVALID" && error.fact.field === field);
}

describe("a pod's user namespace", () => {
  const supported = { supported: true } as const;
  const unsupported = { supported: false, reason: "the kernel is too old" } as const;

  it("is fine with namespaces of the pod, and on the host's network", () => {
    checkPodUserNamespace(podWith({ user }), supported);
    checkPodUserNamespace(podWith({ user, network: "node", ipc: "node" }), supported);
  });

  it("needs a node that can, which other pods do not", () => {
    checkPodUserNamespace(podWith({}), unsupported);
    assert.throws(() => checkPodUserNamespace(podWith({ user }), unsupported), /userns_options.*the kernel is too old/);
  });

  it("is neither privileged nor in the host's pid namespace", () => {
    refused("config.linux.security_context.privileged", () => checkPodUserNamespace(podWith({ user }, { privileged: true }), supported));
    refused("config.linux.security_context.namespace_options.pid", () => checkPodUserNamespace(podWith({ user, pid: "node" }), supported));
  });
});

describe("a container's user namespace", () => {
  const field = "config.linux.security_context.namespace_options.userns_options";
  const others: readonly (readonly [string, UserNamespace | undefined, UserNamespace | undefined])[] = [
    ["none where the sandbox has one", undefined, user],
    ["one where the sandbox has none", user, undefined],
    ["other uids", { ...user, uids: { ...line, hostId: 1 } }, user],
    ["other gids", { ...user, gids: { ...line, length: 1 } }, user],
  ];
  for (const [name, ofContainer, ofPod] of others) {
    it(`is refused: ${name}`, () =>
      refused(field, () => checkContainerUserNamespace(containerWith(ofContainer), podWith({ user: ofPod }))));
  }

  it("is the sandbox's", () => {
    checkContainerUserNamespace(containerWith(user), podWith({ user }));
    checkContainerUserNamespace(containerWith(undefined), podWith({}));
  });
});

describe("a mount's mapping", () => {
  const check = (mount: Partial<MountRequest>, users: UserNamespace | undefined = user) =>
    checkContainerUserNamespace(containerWith(users, [hostMount("/data", mount)]), podWith({ user: users }));

  it("is the pod's or none", () => {
    check({});
    check({ uidMappings: [line], gidMappings: [line] });
    check({ propagation: "host-to-container" });
  });

  const bad: readonly (readonly [string, Partial<MountRequest>, string])[] = [
    ["uids alone", { uidMappings: [line] }, "gidMappings"],
    ["gids alone", { gidMappings: [line] }, "uidMappings"],
    ["two lines", { uidMappings: [line, line], gidMappings: [line] }, "uidMappings"],
    ["another line", { uidMappings: [line], gidMappings: [{ ...line, containerId: 1 }] }, "gidMappings"],
    ["propagation to the host", { propagation: "bidirectional" }, "propagation"],
  ];
  for (const [name, mount, field] of bad) it(`is refused: ${name}`, () => refused(`config.mounts[0].${field}`, () => check(mount)));

  it("needs a user namespace, and propagation to the host none", () => {
    refused("config.mounts[0].uidMappings", () =>
      checkContainerUserNamespace(
        containerWith(undefined, [hostMount("/data", { uidMappings: [line], gidMappings: [line] })]),
        podWith({}),
      ),
    );
    checkContainerUserNamespace(containerWith(undefined, [hostMount("/data", { propagation: "bidirectional" })]), podWith({}));
  });
});

it("auraed takes a line each, or none", () => {
  const expected = [{ containerId: 0, hostId: 100_000, size: 65_536 }];
  assert.deepEqual(agentMappings(user), { uidMappings: expected, gidMappings: expected });
  assert.deepEqual(agentMappings(undefined), { uidMappings: [], gidMappings: [] });
});
