import {
  BRIDGES,
  bridgeDevice,
  bridgeId,
  LAYER_SPACE_BYTES,
  type MachineDescription,
  type Stream,
  SYSTEM_DEVICE_ID,
  type Tap,
  TCG_BUFFER_MIB,
  type Wiring,
} from "./description.ts";
import type { GuestFiles } from "./guest-files.ts";

/** QEMU's arguments for a machine, without the program's name. Pure: what is not in its arguments is not in the answer. */
export function qemuArgs(machine: MachineDescription, wiring: Wiring, kernelArguments: GuestFiles["kernelArguments"]): readonly string[] {
  const { paths } = wiring;
  return [
    ...machineArgs(machine),
    ...["-kernel", paths.kernel, "-append", kernelCommandLine(machine, kernelArguments)],
    ...(paths.initrd === undefined ? [] : ["-initrd", paths.initrd]),
    ...consoleArgs(wiring.console),
    ...portArgs(wiring),
    ...["-device", "virtio-rng-pci,disable-legacy=on"],
    ...systemArgs(machine, paths.system),
    ...diskArgs(wiring),
    ...networkArgs(wiring.tap),
    ...layerBridgeArgs(),
    ...(paths.qmp === undefined ? [] : ["-qmp", `unix:${paths.qmp},server=on,wait=off`]),
    // QMP says from where.
    ...(machine.beginning === "restore" ? ["-incoming", "defer"] : []),
  ];
}

function machineArgs({ accelerator, memoryMib, vcpus, systemBytes }: MachineDescription): string[] {
  const maxMib = memoryMib + (LAYER_SPACE_BYTES + systemBytes) / 2 ** 20;
  return [
    // Only what a guest uses, and nothing that would put a pod's memory elsewhere: core dumps, pages merged with another pod's.
    ...["-machine", "q35,sata=off,smbus=off,usb=off,hpet=off,vmport=off,i8042=off,dump-guest-core=off,mem-merge=off"],
    ...["-accel", accelerator.kind === "kvm" ? "kvm" : `tcg,tb-size=${TCG_BUFFER_MIB}`],
    ...["-cpu", accelerator.kind === "kvm" ? "host" : "qemu64"],
    ...["-smp", `cpus=${vcpus}`],
    ...["-m", `size=${memoryMib}M,maxmem=${maxMib}M`],
    ...["-nodefaults", "-no-user-config", "-display", "none"],
    // So that `top -H` and accounts can tell the guest's processors from QEMU's own threads.
    ...["-name", "debug-threads=on"],
    // A guest that panics or reboots ends its machine.
    "-no-reboot",
    ...["-rtc", "base=utc,clock=host"],
    // QEMU may start no process, become nobody else, and not change its priority: a guest that breaks into it is still in there.
    ...["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
  ];
}

/** The guest's name of the first virtio-pmem device: there is no other at boot. */
const SYSTEM_DEVICE = "/dev/pmem0";

/** On which `auraed init` waits before it greets. */
const TEMPLATE_ARGUMENT = "aurae.template";

function kernelCommandLine({ accelerator, beginning }: MachineDescription, { always, tcg }: GuestFiles["kernelArguments"]): string {
  // Its driver finds the device in the background.
  const root = [`root=${SYSTEM_DEVICE}`, "rootfstype=erofs", "rootflags=dax=always", "ro", "rootwait", "init=/init"];
  const common = ["console=ttyS0", "panic=-1", "random.trust_cpu=on", "cgroup_no_v1=all", ...root, ...always];
  const template = beginning === "boot" ? [] : [TEMPLATE_ARGUMENT];
  return [...common, ...template, ...(accelerator.kind === "tcg" ? [...clockArguments(accelerator.hostTscKhz), ...tcg] : [])].join(" ");
}

/**
 * An emulated timer ticks late on a busy host, and whatever the kernel measures or checks against it goes wrong: calibration hangs a boot, the
 * watchdog gives up the counter (a boot without any clock source follows), the timer's self-test panics. The counter itself is the host's.
 */
function clockArguments(hostTscKhz: number): string[] {
  // The kernel is built with HZ=250, and its delay loop counts the time-stamp counter.
  const loopsPerJiffy = hostTscKhz * 4;
  return [`tsc_early_khz=${hostTscKhz}`, `lpj=${loopsPerJiffy}`, "tsc=reliable", "no_timer_check"];
}

function chardev(id: string, stream: Stream): string[] {
  switch (stream.kind) {
    case "fd":
      return ["-chardev", `socket,id=${id},fd=${stream.fd}`];
    case "stdio":
      return ["-chardev", `stdio,id=${id},signal=off`];
    case "nobody":
      return ["-chardev", `null,id=${id}`];
  }
}

function consoleArgs(stream: Stream): string[] {
  return [...chardev("console", stream), "-serial", "chardev:console"];
}

function portArgs({ control, volumes }: Wiring): string[] {
  return [
    // Port 0 is kept for a console; each port has two queues that the guest sets up at boot.
    ...["-device", "virtio-serial-pci,id=ports,max_ports=3,disable-legacy=on"],
    ...chardev("control", control),
    ...["-device", "virtserialport,bus=ports.0,nr=1,chardev=control,name=aurae.control"],
    ...chardev("volumes", volumes),
    ...["-device", "virtserialport,bus=ports.0,nr=2,chardev=volumes,name=aurae.volumes"],
  ];
}

/** As an image's layer: the guest maps the host's page cache, and auraed is in memory once for all machines. */
function systemArgs({ systemBytes }: MachineDescription, path: string): string[] {
  const memory = { "qom-type": "memory-backend-file", id: "system", share: true, readonly: true, "mem-path": path, size: systemBytes };
  return ["-object", JSON.stringify(memory), "-device", `virtio-pmem-pci,memdev=system,id=${SYSTEM_DEVICE_ID}`];
}

function diskArgs({ paths }: Wiring): string[] {
  const disk = (name: string, filename: string, options: object): string[] => [
    // JSON, so that no character of a path means anything.
    ...["-blockdev", JSON.stringify({ "node-name": name, driver: "raw", ...options, file: { driver: "file", filename } })],
    // On a full disk of the host the guest's writes fail. By default QEMU would stop the machine, and nobody would know.
    ...["-device", `virtio-blk-pci,drive=${name},serial=${name},werror=report,disable-legacy=on`],
  ];
  // The scratch disk dies with its machine, so nothing is gained by a flush: an fsync in the guest costs the guest alone. Its content goes through
  // the host's page cache, where it is charged to the machine and given back under pressure.
  const scratch = { discard: "unmap", cache: { direct: false, "no-flush": true } };
  return [...(paths.scratch === undefined ? [] : disk("scratch", paths.scratch, scratch))];
}

function networkArgs(tap: Tap | undefined): string[] {
  if (tap === undefined) return [];
  const source = tap.kind === "fd" ? `fd=${tap.fd}` : "ifname=tap0,script=no,downscript=no";
  // An empty romfile: nothing boots from the network, and the file need not exist.
  return [
    ...["-netdev", `tap,id=net0,${source},vhost=off`],
    ...["-device", "virtio-net-pci,id=eth0,netdev=net0,romfile=,disable-legacy=on"],
  ];
}

function layerBridgeArgs(): string[] {
  return Array.from({ length: BRIDGES }, (_, bridge) => [
    "-device",
    `pcie-pci-bridge,id=${bridgeId(bridge)},bus=pcie.0,addr=0x${bridgeDevice(bridge).toString(16)}`,
  ]).flat();
}
