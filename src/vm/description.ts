/**
 * One microVM, in numbers and closed choices. There is no text in it that came from a pod, an image or a node: what QEMU is told cannot
 * be influenced by any of them.
 */
export interface MachineDescription {
  readonly accelerator: Accelerator;
  /** All that the guest has; even. */
  readonly memoryMib: number;
  readonly vcpus: number;
  /** Of the system disk: a multiple of `LAYER_ALIGNMENT_BYTES`. */
  readonly systemBytes: number;
  readonly beginning: Beginning;
}

/** A machine boots; or it boots as a template, to be saved before it is anybody's; or it goes on from such a template. */
export type Beginning = "boot" | "template" | "restore";

export type Accelerator =
  | { readonly kind: "kvm" }
  /** Software emulation. The guest is told the frequency of the time-stamp counter, which is the host's: it cannot measure it reliably. */
  | { readonly kind: "tcg"; readonly hostTscKhz: number };

/** Where QEMU finds a part of the machine: a path in the root that it runs in. */
export interface MachinePaths {
  readonly kernel: string;
  /** Only for a kernel that needs one. */
  readonly initrd: string | undefined;
  readonly system: string;
  /** Absent: a machine without scratch disk. */
  readonly scratch: string | undefined;
  readonly qmp: string | undefined;
}

/** A stream between host and guest: a descriptor that QEMU inherits, its stdin and stdout, or nobody. */
export type Stream = { readonly kind: "fd"; readonly fd: number } | { readonly kind: "stdio" } | { readonly kind: "nobody" };

/** What the machine is connected with on the host's side. */
export interface Wiring {
  readonly paths: MachinePaths;
  readonly control: Stream;
  readonly console: Stream;
  readonly volumes: Stream;
  /** Absent: no network card. */
  readonly tap: Tap | undefined;
}

/** A tap with IFF_VNET_HDR that QEMU inherits, or one that it makes for itself, which takes a network namespace of its own. */
export type Tap = { readonly kind: "fd"; readonly fd: number } | { readonly kind: "own" };

/** Of a pod's machine: `auraed vm` makes this root and hands over these descriptors (StartVmRequest). */
export const podWiring = {
  paths: { kernel: "/kernel", initrd: "/initrd", system: "/system.erofs", scratch: "/scratch.img", qmp: "/run/qmp.sock" },
  control: { kind: "fd", fd: 3 },
  console: { kind: "fd", fd: 4 },
  volumes: { kind: "fd", fd: 5 },
  tap: { kind: "fd", fd: 6 },
} as const satisfies Wiring;

/** Descriptor of the saved state, of a pod's machine that goes on from one. */
export const SAVED_STATE_FD = 7;

/** Name of QMP's socket in the directory that is QEMU's /run. */
export const QMP_SOCKET_NAME = "qmp.sock";

/** Path of a layer in QEMU's root. `name` has been checked: see `machine.ts`. */
export function layerPath(name: string): string {
  return `/layers/${name}`;
}

/**
 * Layers are plugged into slots of conventional PCI bridges on the root bus. A bridge with its 31 slots lengthens a boot under TCG by less
 * than what one can measure, where 16 empty pcie-root-ports cost 0.7 s and 64 of them 4 s: the guest walks through every port and its bus.
 */
export const SLOTS_PER_BRIDGE = 31;
export const BRIDGES = 2;
export const LAYER_SLOTS = BRIDGES * SLOTS_PER_BRIDGE;

/** Device number of the first bridge on the root bus; the others follow. */
const FIRST_BRIDGE_DEVICE = 0x10;

/** QEMU's name of the system disk's device, which is memory as the layers' are. */
export const SYSTEM_DEVICE_ID = "system-disk";

export interface LayerSlot {
  /** QEMU's name of the bridge's bus. */
  readonly bus: string;
  /** Device number on that bus. */
  readonly device: number;
  /** For the guest: the bridge's address on bus 0, then the device's on the bus behind it, as `10.0/01.0`. */
  readonly pciPath: string;
}

export function bridgeId(bridge: number): string {
  return `bridge${bridge}`;
}

export function bridgeDevice(bridge: number): number {
  return FIRST_BRIDGE_DEVICE + bridge;
}

/** Slots are numbered from 0. */
export function layerSlot(slot: number): LayerSlot {
  const bridge = Math.floor(slot / SLOTS_PER_BRIDGE);
  // Device 0 of such a bus is the bridge's own hot-plug controller's.
  const device = 1 + (slot % SLOTS_PER_BRIDGE);
  return { bus: bridgeId(bridge), device, pciPath: `${pciAddress(bridgeDevice(bridge))}/${pciAddress(device)}` };
}

function pciAddress(device: number): string {
  return `${device.toString(16).padStart(2, "0")}.0`;
}

/**
 * Address space for all layers of a pod, behind its memory. Costs the guest nothing until a layer is there. With the largest guest it stays
 * far below the 512 GiB that the smallest processors with virtualization can address, and the 1 TiB of QEMU's emulated one.
 */
export const LAYER_SPACE_BYTES = 128 * 2 ** 30;
export const MAX_MEMORY_BYTES = 256 * 2 ** 30;

/** A memory device, and so a layer, starts and ends at multiples of this; the guest refuses another one. */
export const LAYER_ALIGNMENT_BYTES = 2 * 2 ** 20;

/**
 * Translated code that software emulation keeps. A boot fills 32 MiB; with 16 it runs as fast and throws code away; more than this grows
 * every pod without helping a short-lived one.
 */
export const TCG_BUFFER_MIB = 64;
