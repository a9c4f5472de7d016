import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtempDisposable, open, readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { LAYER_SLOTS, layerSlot, podWiring } from "./description.ts";
import { VmError, type VmFact } from "./errors.ts";
import { type FakeAnswer, isListening, openFakeQmp } from "./fake-qmp.ts";
import { QemuMachine } from "./machine.ts";
import { qemuArgs } from "./qemu-args.ts";
import { QmpClient } from "./qmp.ts";

const signal = AbortSignal.timeout(120_000);
const qemuPath = "/usr/bin/qemu-system-x86_64";
const skip = existsSync(qemuPath)
  ? process.getuid?.() === 0
    ? false
    : "needs root: QEMU gets a root of its own"
  : `${qemuPath} is not installed`;
const GIB = 2 ** 30;
const BLOB_BYTES = 2 * 2 ** 20;

/** A root for QEMU in a mount namespace that ends with it, as `auraed vm` makes one. */
const enterRoot = `
root=$1 pod=$2; shift 2
mount -t tmpfs machine-test "$root"
for dir in usr bin lib lib64; do
  if [ -L /$dir ]; then cp -P /$dir "$root/"; elif [ -d /$dir ]; then mkdir "$root/$dir" && mount --rbind /$dir "$root/$dir"; fi
done
mkdir "$root/dev" "$root/run" "$root/layers"
mount --rbind /dev "$root/dev"
mount --bind "$pod/run" "$root/run"
mount --bind "$pod/layers" "$root/layers"
mount -o remount,bind,ro "$root/layers"
for file in kernel system.erofs scratch.img; do truncate -s 2M "$root/$file"; done
exec chroot "$root" "$@"`;

interface Bed extends AsyncDisposable {
  connect(): Promise<QemuMachine>;
  qmp(): Promise<QmpClient>;
  addBlob(name: string, sizeBytes: number): Promise<void>;
}

/** QEMU with a pod's devices, stopped before its first instruction. */
async function startMachine(): Promise<Bed> {
  const directory = await mkdtempDisposable(join(tmpdir(), "machine-test-"));
  const [root, pod] = [join(directory.path, "root"), join(directory.path, "pod")];
  for (const path of [root, pod, join(pod, "run"), join(pod, "layers")]) await mkdir(path);
  const machine = {
    accelerator: { kind: "tcg", hostTscKhz: 2_000_000 },
    memoryMib: 128,
    vcpus: 1,
    systemBytes: 2 ** 21,
    beginning: "boot",
  } as const;
  const args = ["-S", ...qemuArgs(machine, { ...podWiring, tap: undefined }, { always: [], tcg: [] })];
  // A kernel that is never run: without one QEMU loads none, and that is all the same to a machine that stands still.
  const bare = args.filter((arg, index) => !["-kernel", "-initrd", "-append"].some((flag) => arg === flag || args[index - 1] === flag));
  const command = ["--mount", "--propagation", "private", "sh", "-euc", enterRoot, "sh", root, pod, qemuPath, ...bare];
  const child: ChildProcess = spawn("unshare", command, { stdio: ["ignore", "ignore", "inherit", "pipe", "pipe", "pipe"] });
  const qmpPath = join(pod, "run", "qmp.sock");
  while (!(await isListening(qmpPath))) {
    assert.equal(child.exitCode, null, "QEMU ended");
    await sleep(5, undefined, { signal });
  }
  return {
    connect: () => QemuMachine.connect(qmpPath, { signal }),
    qmp: () => QmpClient.connect(qmpPath, { signal }),
    async addBlob(name, sizeBytes) {
      await using blob = await open(join(pod, "layers", name), "w");
      await blob.truncate(sizeBytes);
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await once(child, "exit");
      assert.deepEqual(await readdir(root), [], "mounted for the machine alone");
      await directory.remove();
    },
  };
}

function fails(code: VmFact["code"], message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof VmError, String(error));
    assert.equal(error.fact.code, code, error.message);
    assert.match(error.message, message);
    return true;
  };
}

test("a layer is plugged once, into the next slot, and found again by whoever comes later", { skip }, async () => {
  await using bed = await startMachine();
  await bed.addBlob("sha256-0a", BLOB_BYTES);
  await bed.addBlob("b.2", 3 * BLOB_BYTES);
  {
    await using machine = await bed.connect();
    assert.deepEqual(await machine.status({ signal }), { running: false, qemuState: "prelaunch", layers: [] });
    const layers = [
      { name: "sha256-0a", sizeBytes: BLOB_BYTES },
      { name: "b.2", sizeBytes: 3 * BLOB_BYTES },
    ];
    const paths = await Promise.all(layers.map((layer) => machine.plugLayer(layer, { signal })));
    assert.deepEqual(paths, ["10.0/01.0", "10.0/02.0"]);
  }
  await using later = await bed.connect();
  assert.equal(await later.plugLayer({ name: "b.2", sizeBytes: 3 * BLOB_BYTES }, { signal }), "10.0/02.0");
  assert.deepEqual((await later.status({ signal })).layers.toSorted(), ["b.2", "sha256-0a"]);
});

test("a layer that is not there leaves nothing, and is plugged once it is", { skip }, async () => {
  await using bed = await startMachine();
  const layer = { name: "late", sizeBytes: BLOB_BYTES };
  await using machine = await bed.connect();
  await assert.rejects(machine.plugLayer(layer, { signal }), fails("ERR_QMP_COMMAND", /^QEMU refuses object-add: .*\/layers\/late/));
  await bed.addBlob("late", BLOB_BYTES / 2);
  await assert.rejects(machine.plugLayer(layer, { signal }), fails("ERR_QMP_COMMAND", /^QEMU refuses object-add/));
  await bed.addBlob("late", BLOB_BYTES);
  assert.equal(await machine.plugLayer(layer, { signal }), "10.0/01.0");
});

test("a plug that ended between its two steps is done anew", { skip }, async () => {
  await using bed = await startMachine();
  await bed.addBlob("half", BLOB_BYTES);
  {
    using qmp = await bed.qmp();
    const half = {
      "qom-type": "memory-backend-file",
      id: "memory.0.half",
      "mem-path": "/layers/half",
      size: BLOB_BYTES,
      readonly: true,
      share: true,
    };
    await qmp.execute("object-add", half, { signal });
  }
  await using machine = await bed.connect();
  assert.equal(await machine.plugLayer({ name: "half", sizeBytes: BLOB_BYTES }, { signal }), "10.0/01.0");
});

test("all slots can be taken, and the one layer too many is told so", { skip }, async () => {
  await using bed = await startMachine();
  await using machine = await bed.connect();
  const paths: string[] = [];
  for (let number = 0; number < LAYER_SLOTS; number++) {
    await bed.addBlob(`layer-${number}`, BLOB_BYTES);
    paths.push(await machine.plugLayer({ name: `layer-${number}`, sizeBytes: BLOB_BYTES }, { signal }));
  }
  assert.deepEqual(
    paths,
    Array.from({ length: LAYER_SLOTS }, (_, slot) => layerSlot(slot).pciPath),
  );
  await bed.addBlob("one-more", BLOB_BYTES);
  const more = machine.plugLayer({ name: "one-more", sizeBytes: BLOB_BYTES }, { signal });
  await assert.rejects(more, fails("ERR_LAYER_SLOTS", /room for 62 image layers.*aurae-flat/));
  assert.equal(await machine.plugLayer({ name: "layer-7", sizeBytes: BLOB_BYTES }, { signal }), paths[7], "one that is there still is");
});

test("address space ends with an error that says how much there is", { skip }, async () => {
  await using bed = await startMachine();
  await bed.addBlob("large", 100 * GIB);
  await bed.addBlob("more", 28 * GIB);
  await bed.addBlob("too-much", BLOB_BYTES);
  await using machine = await bed.connect();
  await machine.plugLayer({ name: "large", sizeBytes: 100 * GIB }, { signal });
  await assert.rejects(
    machine.plugLayer({ name: "more", sizeBytes: 28 * GIB + BLOB_BYTES }, { signal }),
    fails("ERR_LAYER_SPACE", /128 GiB together/),
  );
  await machine.plugLayer({ name: "more", sizeBytes: 28 * GIB }, { signal });
  const last = machine.plugLayer({ name: "too-much", sizeBytes: BLOB_BYTES }, { signal });
  await assert.rejects(last, fails("ERR_LAYER_SPACE", /there are 128/));
});

async function fakeMachine(answer: (command: string) => FakeAnswer, run: (machine: QemuMachine) => Promise<void>): Promise<void> {
  await using directory = await mkdtempDisposable(join(tmpdir(), "machine-test-"));
  await using fake = await openFakeQmp(join(directory.path, "qmp.sock"), ({ execute }) => answer(execute));
  await using machine = await QemuMachine.connect(fake.path, { signal });
  await run(machine);
}

const badLayers: readonly (readonly [string, number, RegExp])[] = [
  ["../etc/shadow", BLOB_BYTES, /lower-case letters/],
  ["a,share=on", BLOB_BYTES, /lower-case letters/],
  [".hidden", BLOB_BYTES, /no '\.' in front/],
  ["", BLOB_BYTES, /1 to 96/],
  ["x".repeat(97), BLOB_BYTES, /1 to 96/],
  ["a", BLOB_BYTES + 4096, /not a multiple of 2097152: pad the blob/],
  ["a", 0, /multiple/],
  ["a", Number.NaN, /multiple/],
];
for (const [name, sizeBytes, message] of badLayers) {
  test(`layer '${name.slice(0, 20)}' of ${sizeBytes} bytes is refused before QEMU hears of it`, async () => {
    const heard: string[] = [];
    await fakeMachine(
      (command) => {
        heard.push(command);
        return { return: [] };
      },
      async (machine) => {
        await assert.rejects(machine.plugLayer({ name, sizeBytes }, { signal }), fails("ERR_LAYER_INVALID", message));
      },
    );
    assert.deepEqual(heard, []);
  });
}

test("a QEMU that lies about its devices is believed only what fits", async () => {
  const lies: Record<string, unknown> = {
    "query-status": { status: "running", running: true },
    "qom-list": [{ name: "layer.900.x" }, { name: "layer.1.../../x" }, { name: "layer.-1.x" }, { name: "layer.2.real" }, { name: "type" }],
  };
  await fakeMachine(
    (command) => ({ return: lies[command] }),
    async (machine) => {
      assert.deepEqual(await machine.status({ signal }), { running: true, qemuState: "running", layers: ["real"] });
    },
  );
  for (const answer of [{}, [{ name: 7 }], Array.from({ length: 5000 }, () => ({ name: "x" }))]) {
    await fakeMachine(
      (command) => ({ return: command === "qom-list" ? answer : [] }),
      async (machine) => {
        await assert.rejects(machine.plugLayer({ name: "a", sizeBytes: BLOB_BYTES }, { signal }), fails("ERR_QMP_PROTOCOL", /qom-list/));
      },
    );
  }
});

test("a refused device takes its memory with it", async () => {
  const heard: string[] = [];
  await fakeMachine(
    (command) => {
      heard.push(command);
      return command === "device_add" ? { error: { class: "GenericError", desc: "no" } } : { return: [] };
    },
    async (machine) => {
      await assert.rejects(machine.plugLayer({ name: "a", sizeBytes: BLOB_BYTES }, { signal }), fails("ERR_QMP_COMMAND", /device_add: no/));
    },
  );
  assert.deepEqual(heard.slice(-3), ["object-add", "device_add", "object-del"]);
});
