import assert from "node:assert/strict";
import { suite, test } from "node:test";

import { sandbox as plainSandbox } from "../oci/test-input.ts";
import type { VirtualizationReport } from "../ports.ts";
import type { NamespaceModes, SandboxConfig } from "../sandbox-config.ts";
import { HANDLERS, mayFallFlat, type PlacementPolicy, place } from "./placement.ts";

const VERDICTS = {
  available: { state: "available", accelerator: "kvm", message: "" },
  unavailable: { state: "unavailable", message: "no /dev/kvm", consoleTail: "" },
  unknown: { state: "unknown" },
} as const satisfies Record<string, VirtualizationReport>;

interface Trigger {
  readonly namespaces?: Partial<NamespaceModes>;
  readonly privileged?: boolean;
  readonly earlierRefusal?: string;
}

const TRIGGERS = {
  none: {},
  "host network": { namespaces: { network: "node" } },
  "host pid": { namespaces: { pid: "node" } },
  "host ipc": { namespaces: { ipc: "node" } },
  privileged: { privileged: true },
  "an earlier refusal": { earlierRefusal: "config.devices[0].host_path: is a device of the host" },
} as const satisfies Record<string, Trigger>;

/** Per trigger what is wanted with virtualization available, unavailable and unknown. */
type Table = { readonly [Name in keyof typeof TRIGGERS]: readonly [available: string, unavailable: string, unknown: string] };

const PREFER_VM: Table = {
  none: ["microvm Default", "flat NoVirtualization", "refused VirtualizationUnknown"],
  "host network": ["flat HostNamespace", "flat HostNamespace", "flat HostNamespace"],
  "host pid": ["flat HostNamespace", "flat HostNamespace", "flat HostNamespace"],
  "host ipc": ["flat HostNamespace", "flat HostNamespace", "flat HostNamespace"],
  privileged: ["flat Privileged", "flat Privileged", "flat Privileged"],
  "an earlier refusal": ["flat LateRefusal", "flat LateRefusal", "flat LateRefusal"],
};

function onlyVm(reason: string): Table {
  const vm = [`microvm ${reason}`, "refused RequiresVirtualization", "refused VirtualizationUnknown"] as const;
  const host = ["refused RequiresHost", "refused RequiresHost", "refused RequiresHost"] as const;
  return { none: vm, "host network": host, "host pid": host, "host ipc": host, privileged: vm, "an earlier refusal": vm };
}

function always(outcome: string): Table {
  const row = [outcome, outcome, outcome] as const;
  return { none: row, "host network": row, "host pid": row, "host ipc": row, privileged: row, "an earlier refusal": row };
}

type ByPolicy = { readonly [Policy in PlacementPolicy]: Table };

const DEFAULT: ByPolicy = { "prefer-vm": PREFER_VM, "require-vm": onlyVm("PolicyVm"), flat: always("flat PolicyFlat") };

function whateverPolicy(table: Table): ByPolicy {
  return { "prefer-vm": table, "require-vm": table, flat: table };
}

const WANT: Readonly<Record<string, ByPolicy>> = {
  "": DEFAULT,
  aurae: DEFAULT,
  "aurae-vm": whateverPolicy(onlyVm("HandlerVm")),
  "aurae-flat": whateverPolicy(always("flat HandlerFlat")),
  kata: whateverPolicy(always("refused UnknownHandler")),
};

suite("placement", () => {
  for (const [handler, byPolicy] of Object.entries(WANT)) {
    for (const [policy, table] of Object.entries(byPolicy) as [PlacementPolicy, Table][]) {
      for (const [name, trigger] of Object.entries(TRIGGERS) as [keyof Table, Trigger][]) {
        for (const [index, verdict] of (["available", "unavailable", "unknown"] as const).entries()) {
          test(`'${handler}', ${policy}, ${name}, ${verdict}`, () => {
            const { mode, reason, message } = place({
              handler,
              policy,
              virtualization: VERDICTS[verdict],
              earlierRefusal: trigger.earlierRefusal,
              config: sandbox(trigger.namespaces ?? {}, trigger.privileged ?? false),
            });
            assert.equal(`${mode} ${reason}`, table[name][index]);
            assert.notEqual(message, "");
          });
        }
      }
    }
  }

  test("every handler is in the table", () => {
    for (const handler of HANDLERS) assert.ok(Object.hasOwn(WANT, handler), handler);
  });

  const ask = { policy: "prefer-vm", virtualization: VERDICTS.available, earlierRefusal: undefined } as const;

  test("messages name the field or what is missing, and the remedy", () => {
    const config = sandbox({}, false);
    const noVm = place({ ...ask, handler: "aurae-vm", virtualization: VERDICTS.unavailable, config });
    assert.match(noVm.message, /no \/dev\/kvm.*runtimeClassName aurae-flat/);
    const host = place({ ...ask, handler: "aurae-vm", config: sandbox({ network: "node" }, false) });
    assert.match(host.message, /namespace_options\.network is NODE.*runtimeClassName aurae-flat/);
    assert.match(place({ ...ask, handler: "", virtualization: VERDICTS.unknown, config }).message, /try again/);
    assert.match(place({ ...ask, handler: "", earlierRefusal: "config.x: y", config }).message, /config\.x: y/);
    assert.match(place({ ...ask, handler: "kata", config }).message, /'kata'.*aurae-vm/);
  });

  test("only a pod that may be either falls flat later", () => {
    const may = (handler: string, policy: PlacementPolicy) => mayFallFlat({ handler, policy });
    assert.deepEqual([may("", "prefer-vm"), may("aurae", "prefer-vm")], [true, true]);
    assert.deepEqual([may("", "require-vm"), may("aurae-vm", "prefer-vm"), may("aurae-flat", "prefer-vm")], [false, false, false]);
  });
});

function sandbox(namespaces: Partial<NamespaceModes>, privileged: boolean): SandboxConfig {
  return { ...plainSandbox, namespaces: { ...plainSandbox.namespaces, ...namespaces }, privileged };
}
