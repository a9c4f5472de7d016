import assert from "node:assert/strict";
import { test } from "node:test";
import type { MachineNeeds } from "../runtime/ports.ts";
import { VmError, type VmFact } from "./errors.ts";
import { LEAST_GUEST_BYTES, LEAST_POD_BYTES, type SizeHost, sizeMachine, vmmBytes } from "./sizing.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const defaults = { memoryBytes: 512 * MIB, vcpus: 2 };
const host: SizeHost = { accelerator: "kvm", cpus: 8 };
const nothing: MachineNeeds = { resources: undefined, overhead: undefined };

function withMemory(memoryLimitBytes: number, overheadBytes?: number): MachineNeeds {
  return { resources: { memoryLimitBytes }, overhead: overheadBytes === undefined ? undefined : { memoryLimitBytes: overheadBytes } };
}

test("a pod without limits is of the default size as a whole, and an overhead comes on top", () => {
  for (const needs of [
    nothing,
    { resources: {}, overhead: {} },
    { resources: { memoryLimitBytes: 0, cpuQuotaUs: -1 }, overhead: undefined },
  ]) {
    const size = sizeMachine(needs, defaults, host);
    assert.equal(size.memoryBytes, 512 * MIB);
    assert.equal(size.vcpus, 2);
    assert.ok(size.guestReserveBytes > 0 && size.guestReserveBytes < size.memoryBytes);
  }
  const size = sizeMachine({ resources: undefined, overhead: { memoryLimitBytes: 100 * MIB } }, defaults, host);
  assert.equal(size.memoryBytes, 612 * MIB);
});

test("the containers get what the pod asked for: kernel, auraed and layers come on top", () => {
  for (const limit of [LEAST_POD_BYTES, 13 * MIB + 1, 128 * MIB, GIB, 64 * GIB]) {
    const size = sizeMachine(withMemory(limit), defaults, host);
    assert.equal(size.memoryBytes % (2 * MIB), 0, "QEMU and huge pages want it aligned");
    assert.equal(size.memoryBytes - size.guestReserveBytes, limit);
    // 1.71 % of all of it and 27 MiB were measured to be gone before the first container.
    assert.ok(size.guestReserveBytes >= 27 * MIB + 0.0171 * size.memoryBytes, `${limit}: ${size.guestReserveBytes}`);
    assert.ok(size.guestReserveBytes <= 70 * MIB + 0.02 * size.memoryBytes, `${limit}: ${size.guestReserveBytes}`);
  }
});

test("an overhead pays for QEMU first, and what it has beyond goes to the guest", () => {
  const bare = sizeMachine(withMemory(GIB), defaults, host);
  const forVmm = vmmBytes(host.accelerator);
  assert.equal(sizeMachine(withMemory(GIB, forVmm), defaults, host).memoryBytes, bare.memoryBytes);
  assert.equal(sizeMachine(withMemory(GIB, 1), defaults, host).memoryBytes, bare.memoryBytes, "too little is not taken from the pod");
  const rich = sizeMachine(withMemory(GIB, forVmm + 512 * MIB), defaults, host);
  assert.equal(rich.memoryBytes, GIB + 512 * MIB);
});

test("software emulation takes more beside the guest, not more in it", () => {
  const kvm = sizeMachine(withMemory(GIB), defaults, host);
  const tcg = sizeMachine(withMemory(GIB), defaults, { ...host, accelerator: "tcg" });
  assert.ok(vmmBytes("tcg") > vmmBytes("kvm"));
  assert.equal(tcg.memoryBytes, kvm.memoryBytes);
});

const cpuTable: readonly (readonly [
  quotaUs: number | undefined,
  periodUs: number | undefined,
  overheadUs: number | undefined,
  vcpus: number,
])[] = [
  [undefined, undefined, undefined, 2],
  [-1, 100_000, undefined, 2],
  [0, 100_000, undefined, 2],
  [1_000, 100_000, undefined, 1],
  [100_000, 100_000, undefined, 1],
  [100_001, 100_000, undefined, 2],
  [250_000, undefined, undefined, 3],
  [250_000, 50_000, undefined, 5],
  [100_000, 100_000, 10_000, 2],
  [-1, 100_000, 900_000, 2],
  [9_000_000, 100_000, undefined, 8],
];
for (const [cpuQuotaUs, cpuPeriodUs, overheadUs, vcpus] of cpuTable) {
  test(`quota ${cpuQuotaUs} of period ${cpuPeriodUs} and overhead ${overheadUs} make ${vcpus} processors`, () => {
    const resources = { ...(cpuQuotaUs === undefined ? {} : { cpuQuotaUs }), ...(cpuPeriodUs === undefined ? {} : { cpuPeriodUs }) };
    const overhead = overheadUs === undefined ? undefined : { cpuQuotaUs: overheadUs, cpuPeriodUs: 100_000 };
    assert.equal(sizeMachine({ resources, overhead }, defaults, host).vcpus, vcpus);
  });
}

test("a default above the node's processors is cut to them", () => {
  assert.equal(sizeMachine(nothing, { ...defaults, vcpus: 200 }, host).vcpus, 8);
  assert.equal(sizeMachine(nothing, { ...defaults, vcpus: 255 }, { ...host, cpus: 512 }).vcpus, 255);
});

function factOf(run: () => unknown): VmFact {
  try {
    run();
  } catch (error) {
    if (error instanceof VmError) return error.fact;
    throw error;
  }
  assert.fail("no error");
}

test("what is too small or too large names its field and the bound", () => {
  const pod = "linux.resources.memory_limit_in_bytes";
  assert.deepEqual(
    factOf(() => sizeMachine(withMemory(LEAST_POD_BYTES - 1), defaults, host)),
    { code: "ERR_VM_TOO_SMALL", field: pod, leastBytes: LEAST_POD_BYTES },
  );
  assert.deepEqual(
    factOf(() => sizeMachine(nothing, { ...defaults, memoryBytes: LEAST_GUEST_BYTES - 1 }, host)),
    { code: "ERR_VM_TOO_SMALL", field: "vm.default_memory", leastBytes: LEAST_GUEST_BYTES },
  );
  assert.deepEqual(
    factOf(() => sizeMachine(withMemory(256 * GIB), defaults, host)),
    { code: "ERR_VM_TOO_LARGE", field: pod, mostBytes: 256 * GIB },
  );
  assert.throws(() => sizeMachine(withMemory(1), defaults, host), /memory_limit_in_bytes is 1 bytes.*at least 12582912 \(12 MiB\)/);
});
