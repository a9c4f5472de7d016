import { join } from "node:path";
import type { ConnectOptions, Machine, MachineDirs, MachineLaunch, MachineNeeds, MachinePlan, MachineSize, Vmm } from "../runtime/ports.ts";
import type { BootParts } from "./boot-parts.ts";
import { type MachineDescription, podWiring, QMP_SOCKET_NAME } from "./description.ts";
import { QemuMachine } from "./machine.ts";
import { qemuArgs } from "./qemu-args.ts";
import { type SizeDefaults, sizeMachine } from "./sizing.ts";
import type { Blueprint, MachineTemplates } from "./templates.ts";

/** Directory of the pod's state directory that QEMU has as its /run. A short name: the socket's path has 107 bytes in all. */
const RUN_DIR_NAME = "vm";
const SCRATCH_NAME = "scratch.img";
/** Of a template's machine. A saved state is 30 MiB and 16 for each GiB of memory, and loading takes as much longer: what is larger boots. */
const TEMPLATE_MAX_MIB = 4096;

export interface QemuVmmOptions {
  readonly defaults: SizeDefaults;
  readonly hostCpus: number;
}

/** What machines begin with that need not boot. */
type Templates = Pick<MachineTemplates, "find" | "want" | "giveUp">;

export interface QemuVmmModules {
  /** Throws while the node cannot virtualize. */
  parts(): BootParts;
}

const noTemplates: Templates = { find: () => undefined, want: () => {}, giveUp: async () => {} };

/** MicroVMs by QEMU. Holds no state: `auraed vm` has the processes, QEMU has the devices. */
export class QemuVmm implements Vmm {
  readonly #options: QemuVmmOptions;
  readonly #modules: QemuVmmModules;
  readonly #templates: Templates;

  constructor(options: QemuVmmOptions, modules: QemuVmmModules, templates: Templates = noTemplates) {
    this.#options = options;
    this.#modules = modules;
    this.#templates = templates;
  }

  plan(needs: MachineNeeds): MachinePlan {
    const parts = this.#modules.parts();
    const { defaults, hostCpus: cpus } = this.#options;
    const size = sizeMachine(needs, defaults, { accelerator: parts.accelerator.kind, cpus });
    const machine = describe(size, parts);
    const blueprint = { machine, parts };
    // Under KVM a boot is short.
    const templated = parts.accelerator.kind === "tcg" && machine.memoryMib <= TEMPLATE_MAX_MIB;
    const savedStatePath = templated ? this.#templates.find(blueprint) : undefined;
    return {
      size,
      restores: savedStatePath !== undefined,
      launch: (dirs) => launchOf(blueprint, savedStatePath, dirs),
      started: () => {
        if (templated) this.#templates.want(blueprint);
      },
      failed: async (problem) => {
        if (savedStatePath !== undefined) await this.#templates.giveUp(blueprint, problem);
      },
    };
  }

  connect(stateDir: string, options: ConnectOptions): Promise<Machine> {
    return QemuMachine.connect(join(stateDir, RUN_DIR_NAME, QMP_SOCKET_NAME), options);
  }
}

function describe(size: MachineSize, parts: BootParts): MachineDescription {
  return {
    accelerator: parts.accelerator,
    memoryMib: size.memoryBytes / 2 ** 20,
    vcpus: size.vcpus,
    systemBytes: parts.files.parts.system.sizeBytes,
    beginning: "boot",
  };
}

/** Plain data: the directories are the pod's, and none of them reaches QEMU's arguments. */
function launchOf({ machine, parts }: Blueprint, savedStatePath: string | undefined, { stateDir, rootDir }: MachineDirs): MachineLaunch {
  const { qemu, files } = parts;
  const beginning = savedStatePath === undefined ? "boot" : "restore";
  const { kernel, system, scratch } = files.parts;
  const { initrd } = files;
  const paths = { ...podWiring.paths, initrd: initrd && podWiring.paths.initrd };
  return {
    program: qemu.path,
    args: [...qemuArgs({ ...machine, beginning }, { ...podWiring, paths }, files.kernelArguments)],
    files: [
      { hostPath: kernel.path, path: podWiring.paths.kernel },
      { hostPath: system.path, path: podWiring.paths.system },
      ...(initrd === undefined ? [] : [{ hostPath: initrd.path, path: podWiring.paths.initrd }]),
    ],
    runPath: join(stateDir, RUN_DIR_NAME),
    kvm: machine.accelerator.kind === "kvm",
    scratchTemplate: scratch.path,
    scratchPath: join(rootDir, SCRATCH_NAME),
    savedStatePath: savedStatePath ?? "",
  };
}
