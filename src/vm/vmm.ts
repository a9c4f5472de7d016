import { join } from "node:path";
import type { Machine, MachineDirs, MachineLaunch, MachineNeeds, MachinePlan, Vmm } from "../runtime/ports.ts";
import type { BootParts } from "./boot-parts.ts";
import { type MachineDescription, podWiring, QMP_SOCKET_NAME } from "./description.ts";
import { QemuMachine } from "./machine.ts";
import { qemuArgs } from "./qemu-args.ts";
import { type SizeDefaults, sizeMachine } from "./sizing.ts";

/** Directory of the pod's state directory that QEMU has as its /run. A short name: the socket's path has 107 bytes in all. */
const RUN_DIR_NAME = "vm";
const SCRATCH_NAME = "scratch.img";

export interface QemuVmmOptions {
  readonly defaults: SizeDefaults;
  readonly hostCpus: number;
}

export interface QemuVmmModules {
  /** Throws while the node cannot virtualize. */
  parts(): BootParts;
}

/** MicroVMs by QEMU. Holds no state: `auraed vm` has the processes, QEMU has the devices. */
export class QemuVmm implements Vmm {
  readonly #options: QemuVmmOptions;
  readonly #modules: QemuVmmModules;

  constructor(options: QemuVmmOptions, modules: QemuVmmModules) {
    this.#options = options;
    this.#modules = modules;
  }

  plan(needs: MachineNeeds): MachinePlan {
    const parts = this.#modules.parts();
    const { defaults, hostCpus } = this.#options;
    const size = sizeMachine(needs, defaults, { accelerator: parts.accelerator.kind, cpus: hostCpus });
    const machine: MachineDescription = {
      accelerator: parts.accelerator,
      memoryMib: size.memoryBytes / 2 ** 20,
      vcpus: size.vcpus,
      systemBytes: parts.files.parts.system.sizeBytes,
    };
    return { size, launch: (dirs) => launchOf(machine, parts, dirs) };
  }

  connect(stateDir: string, options: { readonly signal: AbortSignal }): Promise<Machine> {
    return QemuMachine.connect(join(stateDir, RUN_DIR_NAME, QMP_SOCKET_NAME), options);
  }
}

/** Plain data: the directories are the pod's, and none of them reaches QEMU's arguments. */
function launchOf(machine: MachineDescription, { qemu, files }: BootParts, { stateDir, rootDir }: MachineDirs): MachineLaunch {
  const { kernel, system, scratch } = files.parts;
  const { initrd } = files;
  const paths = { ...podWiring.paths, initrd: initrd && podWiring.paths.initrd };
  return {
    program: qemu.path,
    args: [...qemuArgs(machine, { ...podWiring, paths }, files.kernelArguments)],
    files: [
      { hostPath: kernel.path, path: podWiring.paths.kernel },
      { hostPath: system.path, path: podWiring.paths.system },
      ...(initrd === undefined ? [] : [{ hostPath: initrd.path, path: podWiring.paths.initrd }]),
    ],
    runPath: join(stateDir, RUN_DIR_NAME),
    kvm: machine.accelerator.kind === "kvm",
    scratchTemplate: scratch.path,
    scratchPath: join(rootDir, SCRATCH_NAME),
  };
}
