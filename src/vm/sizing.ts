import type { MachineNeeds, MachineResources, MachineSize } from "../runtime/ports.ts";
import { MAX_MEMORY_BYTES, TCG_BUFFER_MIB } from "./description.ts";
import { VmError } from "./errors.ts";

export interface SizeDefaults {
  /** The whole guest's, of a pod without a memory limit: `vm.default_memory`. */
  readonly memoryBytes: number;
  /** Of a pod without a CPU limit: `vm.default_vcpus`. */
  readonly vcpus: number;
}

export interface SizeHost {
  readonly accelerator: "kvm" | "tcg";
  readonly cpus: number;
}

const MIB = 2 ** 20;
/** Memory blocks and huge pages are of this size. */
const ALIGNMENT_BYTES = 2 * MIB;

/**
 * What is gone in a guest before a container runs: 16 MiB of kernel, what is cached of auraed's binary, and room for what auraed and the OCI
 * engine allocate. The kernel's tables of pages are extra.
 */
const RESERVE_BYTES = 48 * MIB;
/** Measured between 256 MiB and 2 GiB: 1.71 % of the memory, 1.6 of it the page structures. */
const PAGE_TABLES_SHARE = 0.0175;
/** A mapped layer takes 1.6 % of its size in the guest's memory. Nobody knows the images when the machine starts: room for so much of them. */
const LAYERS_EXPECTED_BYTES = 2 ** 30;
const LAYER_SHARE = 0.016;

/** A guest of 64 MiB boots; this one can also run a container. */
export const LEAST_GUEST_BYTES = 96 * MIB;
/** An OCI engine is in the container's cgroup before the container is: less than this kills it. */
export const LEAST_POD_BYTES = 12 * MIB;

/** QEMU itself: 25 MiB of heap and rings, 35 of program files that the first machine of a node is charged, and its threads' buffers. */
const VMM_BYTES = 80 * MIB;
/** Under software emulation also the translated code, and its tables of about a quarter. */
const VMM_TCG_BYTES = VMM_BYTES + TCG_BUFFER_MIB * 1.25 * MIB;

/** As many as QEMU's machine can address. */
const MAX_VCPUS = 255;
const DEFAULT_PERIOD_US = 100_000;

/** Throws ERR_VM_TOO_SMALL and ERR_VM_TOO_LARGE, with the field to change. Pure. */
export function sizeMachine(needs: MachineNeeds, defaults: SizeDefaults, host: SizeHost): MachineSize {
  return { ...sizeMemory(needs, defaults, vmmBytes(host.accelerator)), vcpus: countVcpus(needs, defaults, host) };
}

/** What QEMU takes beside the guest's memory, in the same cgroup: what a RuntimeClass's overhead is for. */
export function vmmBytes(accelerator: "kvm" | "tcg"): number {
  return accelerator === "tcg" ? VMM_TCG_BYTES : VMM_BYTES;
}

type Memory = Omit<MachineSize, "vcpus">;

function sizeMemory({ resources, overhead }: MachineNeeds, defaults: SizeDefaults, forVmmBytes: number): Memory {
  const limit = limitOf(resources);
  if (limit === undefined) return defaultMemory(defaults.memoryBytes, overhead);
  const field = "linux.resources.memory_limit_in_bytes";
  if (limit < LEAST_POD_BYTES) throw tooSmall(field, limit, LEAST_POD_BYTES);
  // The overhead pays for QEMU first. What it has beyond is the guest's, whose kernel takes at least the reserve.
  const given = (limitOf(overhead) ?? 0) - forVmmBytes;
  const memoryBytes = alignUp(limit + Math.max(reserveFor(limit), given));
  if (memoryBytes > MAX_MEMORY_BYTES) throw tooLarge(field, limit);
  return { memoryBytes, guestReserveBytes: memoryBytes - limit };
}

/** The default is of the guest as a whole, so that an operator can count machines; an overhead comes on top. */
function defaultMemory(defaultBytes: number, overhead: MachineResources | undefined): Memory {
  const field = "vm.default_memory";
  if (defaultBytes < LEAST_GUEST_BYTES) throw tooSmall(field, defaultBytes, LEAST_GUEST_BYTES);
  const memoryBytes = alignUp(defaultBytes + (limitOf(overhead) ?? 0));
  if (memoryBytes > MAX_MEMORY_BYTES) throw tooLarge(field, memoryBytes);
  return { memoryBytes, guestReserveBytes: Math.min(memoryBytes, reserveFor(memoryBytes)) };
}

/** For a guest whose containers may use `podBytes`. */
function reserveFor(podBytes: number): number {
  const fixedBytes = RESERVE_BYTES + LAYERS_EXPECTED_BYTES * LAYER_SHARE;
  // The reserve has page structures too.
  return Math.ceil((podBytes + fixedBytes) / (1 - PAGE_TABLES_SHARE) - podBytes);
}

/**
 * As many processors as the limit would keep busy. More than the host has would only make the guest's threads wait for each other's locks;
 * the kubelet's cgroup holds the pod to its share whatever their number.
 */
function countVcpus({ resources, overhead }: MachineNeeds, defaults: SizeDefaults, host: SizeHost): number {
  const limit = cpusOf(resources);
  const wanted = limit === undefined ? defaults.vcpus : Math.ceil(limit + (cpusOf(overhead) ?? 0));
  return Math.max(1, Math.min(wanted, host.cpus, MAX_VCPUS));
}

function limitOf(resources: MachineResources | undefined): number | undefined {
  const bytes = resources?.memoryLimitBytes;
  return typeof bytes === "number" && bytes > 0 ? bytes : undefined;
}

function cpusOf(resources: MachineResources | undefined): number | undefined {
  const { cpuQuotaUs, cpuPeriodUs = DEFAULT_PERIOD_US } = resources ?? {};
  return typeof cpuQuotaUs === "number" && cpuQuotaUs > 0 && cpuPeriodUs > 0 ? cpuQuotaUs / cpuPeriodUs : undefined;
}

function alignUp(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
}

function tooSmall(field: string, bytes: number, leastBytes: number): VmError {
  return new VmError(
    { code: "ERR_VM_TOO_SMALL", field, leastBytes },
    `${field} is ${bytes} bytes, too little for a microVM: give it at least ${leastBytes} (${leastBytes / MIB} MiB), or use runtimeClassName aurae-flat`,
  );
}

function tooLarge(field: string, bytes: number): VmError {
  const most = MAX_MEMORY_BYTES;
  return new VmError(
    { code: "ERR_VM_TOO_LARGE", field, mostBytes: most },
    `${field} makes a microVM of ${bytes} bytes, and ${most} (${most / 2 ** 30} GiB) are the most: lower it, or use runtimeClassName aurae-flat`,
  );
}
