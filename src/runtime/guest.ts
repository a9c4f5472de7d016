import type { ConfigureResponse } from "../../api/gen/aurae/guest/v0/guest.ts";
import type { DeviceNode } from "../host/devices.ts";
import { CAPABILITIES } from "./oci/capabilities.ts";
import type { HostFacts } from "./oci/input.ts";
import type { NamespacePaths } from "./pod.ts";
import type { PodFilePaths } from "./pod-directory.ts";

/** What is known of a pod's guest: kept in the pod's record, JSON-safe. */
export interface Guest {
  readonly kernelRelease: string;
  readonly memoryBytes: number;
  /** Part of it that the guest's kernel and auraed take: the containers have the rest. */
  readonly guestReserveBytes?: number;
  readonly vcpus: number;
  /** QEMU's user and group on the host. */
  readonly uid: number;
  /** QEMU on the host. */
  readonly vmmPid?: number;
  readonly namespaces: NamespacePaths;
  readonly facts: HostFacts;
}

export interface GuestSize {
  readonly memoryBytes: number;
  readonly guestReserveBytes: number;
  readonly vcpus: number;
}

/** Root of everything auraed keeps in a guest. */
const STATE_DIR = "/run/aurae";
const SCRATCH_DIR = "/scratch";
/** The guest's cgroup of the pod. */
const POD_CGROUP = "/pod";

/** Where the guest contract puts things. */
export const guestPaths = {
  files: {
    namespaces: `${STATE_DIR}/ns`,
    shm: `${STATE_DIR}/shm`,
    hosts: `${STATE_DIR}/etc/hosts`,
    resolvConf: `${STATE_DIR}/etc/resolv.conf`,
    hostname: `${STATE_DIR}/etc/hostname`,
  } satisfies PodFilePaths,
  volume: (name: string) => `${STATE_DIR}/volumes/${name}`,
  rootfs: (containerId: string) => `${STATE_DIR}/containers/${containerId}/rootfs`,
  imageVolume: (containerId: string, index: number) => `${STATE_DIR}/containers/${containerId}/image-${index}`,
  scratch: (containerId: string) => `${SCRATCH_DIR}/containers/${containerId}`,
  cgroup: (containerId: string) => `${POD_CGROUP}/${containerId}`,
} as const;

export interface MadeGuest {
  readonly size: GuestSize;
  readonly uid: number;
  readonly vmmPid: number;
  readonly arch: string;
}

export function guestOf(answer: ConfigureResponse, { size, uid, vmmPid, arch }: MadeGuest): Guest {
  return {
    kernelRelease: answer.kernelRelease,
    memoryBytes: size.memoryBytes,
    guestReserveBytes: size.guestReserveBytes,
    vcpus: size.vcpus,
    uid,
    vmmPid,
    namespaces: {
      network: answer.networkPath,
      ipc: answer.ipcPath,
      uts: answer.utsPath,
      pid: answer.pidPath,
      user: answer.userPath,
    },
    facts: {
      arch,
      cgroupVersion: 2,
      swapAccounting: answer.swapAccounting,
      hugepageSizes: answer.hugepageSizes,
      seccomp: answer.seccomp,
      apparmor: undefined,
      capabilities: CAPABILITIES.filter((_name, number) => ((answer.capabilities >> BigInt(number)) & 1n) === 1n),
      // Nothing of the host's processes is in reach: a container may have any score.
      oomScoreAdjFloor: -1000,
      rlimits: [],
    },
  };
}

/**
 * What a privileged container finds below /dev beside the standard devices: all of the guest that is of use to it. Numbers are the kernel's
 * (Documentation/admin-guide/devices.txt).
 */
export const GUEST_DEVICES: readonly DeviceNode[] = [
  character("/dev/kmsg", 1, 11, 0o644),
  character("/dev/fuse", 10, 229, 0o666),
  character("/dev/net/tun", 10, 200, 0o666),
  character("/dev/loop-control", 10, 237, 0o660),
  ...Array.from({ length: 8 }, (_, minor) => node("b", `/dev/loop${minor}`, 7, minor, 0o660)),
];

/** The guest's own device of that path: what is the kernel's and not the machine's is as good there as on the node. */
export function guestDevice(path: string): DeviceNode | undefined {
  return GUEST_DEVICES.find(({ containerPath }) => containerPath === path);
}

function character(containerPath: string, major: number, minor: number, fileMode: number): DeviceNode {
  return node("c", containerPath, major, minor, fileMode);
}

function node(type: "b" | "c", containerPath: string, major: number, minor: number, fileMode: number): DeviceNode {
  return { containerPath, type, major, minor, fileMode, uid: 0, gid: 0, permissions: "rwm" };
}
