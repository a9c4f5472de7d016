import assert from "node:assert/strict";
import { test } from "node:test";
import type { MachineDirs, MachineNeeds } from "../runtime/ports.ts";
import type { BootParts } from "./boot-parts.ts";
import { testParts as parts, testPart } from "./boot-test-parts.ts";
import { LAYER_SLOTS, layerSlot } from "./description.ts";
import { QemuVmm } from "./vmm.ts";

const kvmParts: BootParts = { ...parts, accelerator: { kind: "kvm" } };
const dirs: MachineDirs = { stateDir: "/run/aurae-cri/pods/0123456789abcdef", rootDir: "/var/lib/aurae-cri/pods/0123456789abcdef" };
const options = { defaults: { memoryBytes: 512 * 2 ** 20, vcpus: 1 }, hostCpus: 4 };

function vmm(found = parts): QemuVmm {
  return new QemuVmm(options, { parts: () => found });
}

function valueOf(args: readonly string[], flag: string): string {
  const value = args[args.indexOf(flag) + 1];
  assert.ok(args.includes(flag) && value !== undefined, `no ${flag}`);
  return value;
}

/** Numbers between 0 and 1, the same for the same seed (mulberry32). */
function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const hostile = [
  ",file=/etc/shadow",
  "../../etc",
  "\u0000",
  "\n-drive",
  "$(id)",
  "%s",
  "-chardev",
  "fd=3,server=on",
  "ünï",
  "'\"",
  "/layers/x",
  "mem-path=/",
];

/** A sandbox as any client may send it. The mark makes each of its texts recognizable in whatever is made of them. */
function anySandbox(random: () => number, mark: string): MachineNeeds & Readonly<Record<string, unknown>> {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const text = (): string => `${pick(hostile)}${mark}${pick(hostile)}`;
  const map = (): Record<string, string> => Object.fromEntries(Array.from({ length: 4 }, () => [text(), text()]));
  const limits = () => ({
    memoryLimitBytes: Math.floor(12 * 2 ** 20 + random() * 2 ** 36),
    cpuQuotaUs: Math.floor(random() * 1e6) - 1000,
    cpuPeriodUs: 100_000,
    cpusetCpus: text(),
    cpusetMems: text(),
    unified: map(),
  });
  return {
    metadata: { name: text(), uid: text(), namespace: text(), attempt: 1 },
    hostname: text(),
    logDirectory: text(),
    labels: map(),
    annotations: { "io.kubernetes.cri.untrusted-workload": text(), ...map() },
    sysctls: map(),
    cgroupParent: text(),
    images: [text()],
    resources: random() < 0.2 ? undefined : limits(),
    overhead: random() < 0.5 ? undefined : { ...limits(), memoryLimitBytes: Math.floor(random() * 2 ** 30) },
  };
}

test("nothing that a client writes reaches an argument or a path: only the machine's numbers differ", () => {
  const seed = 20_260_401;
  const random = seededRandom(seed);
  const shapeOf = (args: readonly string[]): string => args.map((arg) => arg.replaceAll(/(size|maxmem|cpus)=\d+/g, "$1=N")).join("\n");
  for (const found of [parts, kvmParts]) {
    const plain = vmm(found).plan({ resources: undefined, overhead: undefined }).launch(dirs);
    for (let round = 0; round < 500; round++) {
      const mark = `MARK${round}`;
      const { args, ...rest } = vmm(found).plan(anySandbox(random, mark)).launch(dirs);
      const where = `seed ${seed}, round ${round}`;
      assert.equal(shapeOf(args), shapeOf(plain.args), where);
      assert.deepEqual({ ...rest, args: plain.args }, plain, where);
      assert.ok(!JSON.stringify([args, rest]).includes("MARK"), where);
    }
  }
});

test("a number that is none does not become an argument", () => {
  const needs = {
    resources: { memoryLimitBytes: "64M,maxmem=1T", cpuQuotaUs: "1,sockets=9" },
    overhead: undefined,
  } as unknown as MachineNeeds;
  const { args } = vmm().plan(needs).launch(dirs);
  assert.equal(valueOf(args, "-m"), `size=512M,maxmem=${512 + 2 + 128 * 1024}M`);
  assert.equal(valueOf(args, "-smp"), "cpus=1");
});

test("the pod's directories are the host's business: QEMU knows the paths of its own root alone", () => {
  const launch = vmm().plan({ resources: undefined, overhead: undefined }).launch(dirs);
  const words = launch.args.join("\n");
  assert.ok(!words.includes("/run/aurae-cri") && !words.includes("/var/lib") && !words.includes("/guest/"), words);
  assert.deepEqual(launch.files, [
    { hostPath: "/guest/vmlinux", path: "/kernel" },
    { hostPath: "/guest/system.erofs", path: "/system.erofs" },
  ]);
  assert.ok(!launch.args.includes("-initrd"));
  assert.equal(launch.scratchTemplate, "/guest/scratch.img");
  assert.equal(launch.scratchPath, `${dirs.rootDir}/scratch.img`);
  assert.equal(launch.runPath, `${dirs.stateDir}/vm`);
  assert.match(valueOf(launch.args, "-qmp"), /^unix:\/run\/qmp\.sock,/);
});

test("a kernel that needs an initrd gets it; the system disk is mapped, read-only", () => {
  const found = { ...parts, files: { ...parts.files, initrd: testPart("initrd") } };
  const { args, files } = vmm(found).plan({ resources: undefined, overhead: undefined }).launch(dirs);
  assert.equal(valueOf(args, "-initrd"), "/initrd");
  assert.deepEqual(files.at(-1), { hostPath: "/guest/initrd", path: "/initrd" });
  assert.match(valueOf(args, "-append"), / root=\/dev\/pmem0 rootfstype=erofs rootflags=dax=always ro rootwait init=\/init /);
  assert.match(valueOf(args, "-object"), /"readonly":true,"mem-path":"\/system\.erofs","size":2097152/);
});

test("descriptors are those that auraed vm hands over", () => {
  const { args } = vmm().plan({ resources: undefined, overhead: undefined }).launch(dirs);
  for (const [id, fd] of [
    ["control", 3],
    ["console", 4],
    ["volumes", 5],
  ] as const)
    assert.ok(args.includes(`socket,id=${id},fd=${fd}`), id);
  assert.equal(valueOf(args, "-netdev"), "tap,id=net0,fd=6,vhost=off");
});

test("emulation is told the clock, KVM measures it", () => {
  const needs = { resources: undefined, overhead: undefined };
  const emulated = vmm().plan(needs).launch(dirs);
  assert.match(valueOf(emulated.args, "-append"), /\bquiet tsc_early_khz=2445406 lpj=9781624 tsc=reliable no_timer_check mitigations=off$/);
  assert.equal(emulated.kvm, false);
  const real = vmm(kvmParts).plan(needs).launch(dirs);
  assert.doesNotMatch(valueOf(real.args, "-append"), /tsc|lpj|mitigations/);
  assert.deepEqual([valueOf(real.args, "-accel"), valueOf(real.args, "-cpu"), real.kvm], ["kvm", "host", true]);
});

test("each slot is another device", () => {
  const paths = Array.from({ length: LAYER_SLOTS }, (_, slot) => layerSlot(slot));
  assert.equal(new Set(paths.map(({ pciPath }) => pciPath)).size, LAYER_SLOTS);
  assert.equal(new Set(paths.map(({ bus, device }) => `${bus}/${device}`)).size, LAYER_SLOTS);
  assert.deepEqual(layerSlot(0), { bus: "bridge0", device: 1, pciPath: "10.0/01.0" });
  assert.deepEqual(layerSlot(61), { bus: "bridge1", device: 31, pciPath: "11.0/1f.0" });
});

/** Templates of which one is there. */
function templatesWith(savedStatePath: string | undefined) {
  const told: string[] = [];
  return {
    told,
    templates: {
      find: () => savedStatePath,
      want: () => void told.push("want"),
      giveUp: async (_: unknown, problem: string) => void told.push(problem),
    },
  };
}

test("a machine goes on from a template, where boots are slow", async () => {
  const none = { resources: undefined, overhead: undefined };
  const limited = (memoryLimitBytes: number) => ({ resources: { memoryLimitBytes }, overhead: undefined });
  const { templates, told } = templatesWith("/var/lib/aurae-cri/vm-templates/0.state");
  for (const needs of [none, limited(2 ** 30)]) {
    const plan = new QemuVmm(options, { parts: () => parts }, templates).plan(needs);
    const launch = plan.launch(dirs);
    assert.ok(plan.restores);
    assert.equal(launch.savedStatePath, "/var/lib/aurae-cri/vm-templates/0.state");
    assert.equal(valueOf(launch.args, "-incoming"), "defer");
    assert.match(valueOf(launch.args, "-append"), / aurae\.template /);
    await plan.failed("QEMU ended with 1");
    assert.deepEqual(told.splice(0), ["QEMU ended with 1"]);
  }
  for (const [found, needs] of [
    [parts, limited(2 ** 33)],
    [kvmParts, none],
  ] as const) {
    const boots = new QemuVmm(options, { parts: () => found }, templates).plan(needs);
    assert.deepEqual(
      [boots.restores, boots.launch(dirs).savedStatePath, boots.launch(dirs).args.includes("-incoming")],
      [false, "", false],
    );
    boots.started();
    await boots.failed("QEMU ended with 2");
  }
  assert.deepEqual(told, [], "nobody wants a template of those, nor loses one by them");
});

test("the first machine of a size boots, and wants a template for the next", async () => {
  const { templates, told } = templatesWith(undefined);
  const plan = new QemuVmm(options, { parts: () => parts }, templates).plan({ resources: undefined, overhead: undefined });
  assert.ok(!plan.restores && !valueOf(plan.launch(dirs).args, "-append").includes("template"));
  await plan.failed("QEMU ended with 1");
  assert.deepEqual(told, [], "a boot that fails says nothing of templates");
  plan.started();
  assert.deepEqual(told, ["want"]);
});

test("a pod with a limit does not need defaults that work", () => {
  const none = { resources: undefined, overhead: undefined };
  const small = new QemuVmm({ ...options, defaults: { memoryBytes: 32 * 2 ** 20, vcpus: 1 } }, { parts: () => parts });
  assert.throws(() => small.plan(none), /vm\.default_memory/);
  assert.ok(!small.plan({ ...none, resources: { memoryLimitBytes: 64 * 2 ** 20 } }).restores);
});
