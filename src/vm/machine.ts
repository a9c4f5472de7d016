import { z } from "zod";
import { sleep, withDeadline } from "../lib/abort.ts";
import type { ConnectOptions, LayerToPlug, Machine, MachineStatus } from "../runtime/ports.ts";
import { LAYER_ALIGNMENT_BYTES, LAYER_SLOTS, LAYER_SPACE_BYTES, layerPath, layerSlot, SYSTEM_DEVICE_ID } from "./description.ts";
import { layerError, VmError } from "./errors.ts";
import { parseAnswer, QmpClient } from "./qmp.ts";
import { restoreMachine } from "./save-machine.ts";

/** QMP answers in milliseconds; a guest that keeps QEMU busy can delay it, and one that took it over can keep silent. */
const QMP_TIMEOUT_MS = 10_000;
/** From QEMU's execution to its socket: some 50 ms, on a busy node more. */
const QMP_APPEARS_MS = 5_000;
const QMP_LOOK_AGAIN_MS = 4;

/** As the contracts with auraed have it, and short enough for QEMU's ids. */
const layerNamePattern = /^[a-z0-9-][a-z0-9.-]{0,95}$/;

/** QEMU's id of a layer's device; its memory has the same with another word in front. The state of all layers is in these names: no record can disagree. */
const deviceIdPattern = /^layer\.(\d{1,3})\.([a-z0-9-][a-z0-9.-]{0,95})$/;
const memoryIdPattern = /^memory\.(\d{1,3})\.([a-z0-9-][a-z0-9.-]{0,95})$/;

const itemsSchema = z.array(z.object({ name: z.string().max(256) })).max(4096);
const statusSchema = z.object({ status: z.string().min(1).max(64), running: z.boolean() });
const memorySchema = z.array(z.object({ data: z.object({ id: z.string().max(256), size: z.number().nonnegative() }) })).max(1024);

interface Taken {
  readonly slot: number;
  readonly name: string;
}

/**
 * A machine that runs, through its QMP socket. What is plugged is asked of QEMU each time, so a daemon that comes back goes on where the last
 * one stopped, in the middle of a plug too. QEMU talks to one client at a time, so no two conversations choose the same slot.
 */
export class QemuMachine implements Machine {
  readonly #qmp: QmpClient;
  /** The operation under way: each takes its slot before the next one looks. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(qmp: QmpClient) {
    this.#qmp = qmp;
  }

  /** Throws ERR_QMP_CONNECT when nothing runs there. */
  static async connect(qmpPath: string, options: ConnectOptions): Promise<QemuMachine> {
    using deadline = withDeadline(QMP_TIMEOUT_MS, options.signal);
    const { signal } = deadline;
    const lastMs = performance.now() + (options.justStarted === true ? QMP_APPEARS_MS : 0);
    for (;;) {
      try {
        return new QemuMachine(await QmpClient.connect(qmpPath, { signal }));
      } catch (error) {
        const mayCome = error instanceof VmError && error.fact.code === "ERR_QMP_CONNECT" && performance.now() < lastMs;
        if (!mayCome) throw error;
      }
      await sleep(QMP_LOOK_AGAIN_MS, signal);
    }
  }

  async restore(options: { readonly signal: AbortSignal }): Promise<void> {
    await this.#inTurn(options.signal, (signal) => restoreMachine(this.#qmp, { signal }));
  }

  async plugLayer(layer: LayerToPlug, options: { readonly signal: AbortSignal }): Promise<string> {
    checkLayer(layer);
    return await this.#inTurn(options.signal, (signal) => plug(this.#qmp, layer, signal));
  }

  async status(options: { readonly signal: AbortSignal }): Promise<MachineStatus> {
    return await this.#inTurn(options.signal, async (signal) => {
      const { status, running } = parseAnswer(statusSchema, await this.#qmp.execute("query-status", {}, { signal }), "query-status");
      const layers = await listTaken(this.#qmp, "/machine/peripheral", deviceIdPattern, signal);
      return { running, qemuState: status, layers: layers.map(({ name }) => name) };
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#qmp[Symbol.dispose]();
    await this.#last;
  }

  async #inTurn<T>(caller: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const running = this.#last.then(async () => {
      using deadline = withDeadline(QMP_TIMEOUT_MS, caller);
      return await work(deadline.signal);
    });
    this.#last = running.catch(() => {});
    return await running;
  }
}

function checkLayer({ name, sizeBytes }: LayerToPlug): void {
  if (!layerNamePattern.test(name))
    throw layerError(name, "a name has 1 to 96 lower-case letters, digits, '-' and '.', and no '.' in front");
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % LAYER_ALIGNMENT_BYTES !== 0) {
    throw layerError(name, `${sizeBytes} bytes are not a multiple of ${LAYER_ALIGNMENT_BYTES}: pad the blob`);
  }
}

async function plug(qmp: QmpClient, { name, sizeBytes }: LayerToPlug, signal: AbortSignal): Promise<string> {
  const taken = await listTaken(qmp, "/machine/peripheral", deviceIdPattern, signal);
  const there = taken.find((layer) => layer.name === name);
  if (there !== undefined) return layerSlot(there.slot).pciPath;
  await dropLeftMemory(qmp, name, signal);
  const slot = freeSlot(taken);
  await checkSpace(qmp, sizeBytes, signal);
  const memory = `memory.${slot}.${name}`;
  const { bus, device, pciPath } = layerSlot(slot);
  const backend = {
    "qom-type": "memory-backend-file",
    id: memory,
    "mem-path": layerPath(name),
    size: sizeBytes,
    share: true,
    readonly: true,
  };
  await qmp.execute("object-add", backend, { signal });
  const pmem = { driver: "virtio-pmem-pci", id: `layer.${slot}.${name}`, memdev: memory, bus, addr: `0x${device.toString(16)}` };
  try {
    await qmp.execute("device_add", pmem, { signal });
  } catch (error) {
    // When the connection is gone too, the next plug of this layer finds the memory and drops it.
    if (error instanceof VmError && error.fact.code === "ERR_QMP_COMMAND") await qmp.execute("object-del", { id: memory }, { signal });
    throw error;
  }
  return pciPath;
}

/** Memory of a plug that ended before its device was there. */
async function dropLeftMemory(qmp: QmpClient, name: string, signal: AbortSignal): Promise<void> {
  const left = await listTaken(qmp, "/objects", memoryIdPattern, signal);
  for (const { slot } of left.filter((memory) => memory.name === name)) {
    await qmp.execute("object-del", { id: `memory.${slot}.${name}` }, { signal });
  }
}

function freeSlot(taken: readonly Taken[]): number {
  const used = new Set(taken.map(({ slot }) => slot));
  for (let slot = 0; slot < LAYER_SLOTS; slot++) if (!used.has(slot)) return slot;
  throw new VmError(
    { code: "ERR_LAYER_SLOTS", slots: LAYER_SLOTS },
    `a microVM has room for ${LAYER_SLOTS} image layers and keeps those of containers that are gone: use images with fewer layers, or runtimeClassName aurae-flat`,
  );
}

async function checkSpace(qmp: QmpClient, sizeBytes: number, signal: AbortSignal): Promise<void> {
  const devices = parseAnswer(memorySchema, await qmp.execute("query-memory-devices", {}, { signal }), "query-memory-devices");
  const layers = devices.filter(({ data }) => data.id !== SYSTEM_DEVICE_ID);
  const usedBytes = layers.reduce((sum, { data }) => sum + data.size, 0);
  if (usedBytes + sizeBytes <= LAYER_SPACE_BYTES) return;
  throw new VmError(
    { code: "ERR_LAYER_SPACE", spaceBytes: LAYER_SPACE_BYTES, usedBytes },
    `the image layers of a microVM may have ${LAYER_SPACE_BYTES / 2 ** 30} GiB together, and there are ${Math.ceil(usedBytes / 2 ** 30)}: use smaller images, or runtimeClassName aurae-flat`,
  );
}

async function listTaken(qmp: QmpClient, path: string, pattern: RegExp, signal: AbortSignal): Promise<Taken[]> {
  const items = parseAnswer(itemsSchema, await qmp.execute("qom-list", { path }, { signal }), "qom-list");
  return items.flatMap(({ name }) => {
    const [, slot, layer] = pattern.exec(name) ?? [];
    return layer !== undefined && Number(slot) < LAYER_SLOTS ? [{ slot: Number(slot), name: layer }] : [];
  });
}
