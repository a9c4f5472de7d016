import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";

import { sha256Of } from "../digest.ts";
import { ImageError } from "../errors.ts";
import { LayerWorkers } from "./layer-workers.ts";
import { tarOf } from "./tar-fixture.ts";

const signal = new AbortController().signal;

describe("LayerWorkers", () => {
  let dir = "";
  let workers: LayerWorkers;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "aurae-cri-workers-"));
    workers = new LayerWorkers({ maxWorkers: 2, idleMs: 50 });
  });
  afterEach(async () => {
    await workers[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });

  const tar = tarOf([{ name: "file", data: Buffer.alloc(20 << 20, "data") }]);

  function build(name: string, source = () => pieces(tar), by = signal) {
    const job = {
      digest: sha256Of(tar),
      sizeBytes: tar.length,
      diffId: sha256Of(tar),
      path: join(dir, name),
      maxLayerBytes: 2 ** 40,
      maxEntries: 10,
    };
    return workers.build(job, source, by);
  }

  async function* pieces(bytes: Buffer): AsyncGenerator<Buffer> {
    for (let at = 0; at < bytes.length; at += 50_000) yield bytes.subarray(at, at + 50_000);
  }

  it("builds more layers than it has threads, and again after the threads have gone", async () => {
    await Promise.all(["a", "b", "c", "d", "e"].map((name) => build(name)));
    await new Promise((resolve) => setTimeout(resolve, 200));
    await build("f");
    assert.equal((await readdir(dir)).length, 6);
  });

  it("ends the source of a caller who gives up while it stalls", async () => {
    let open = true;
    async function* stalling(until: AbortSignal): AsyncGenerator<Buffer> {
      try {
        yield Buffer.alloc(300_000, "not a tar");
        await new Promise((_, reject) => until.addEventListener("abort", () => reject(new Error("stopped"))));
      } finally {
        open = false;
      }
    }
    const job = {
      digest: sha256Of(tar),
      sizeBytes: 1,
      diffId: sha256Of(tar),
      path: join(dir, "x"),
      maxLayerBytes: 2 ** 40,
      maxEntries: 10,
    };
    const stopping = new AbortController();
    const building = workers.build(job, stalling, stopping.signal);
    setTimeout(() => stopping.abort(), 300);
    await assert.rejects(building, (error) => error instanceof ImageError && error.fact.code === "ERR_PULL_ABORTED");
    assert.equal(open, false);
    assert.deepEqual(await readdir(dir), []);
  });

  it("passes on the failure of the source, and leaves nothing", async () => {
    async function* failing(): AsyncGenerator<Buffer> {
      yield tar.subarray(0, 1 << 20);
      throw new Error("the wire is cut");
    }
    await assert.rejects(build("x", failing), /the wire is cut/);
    assert.deepEqual(await readdir(dir), []);
    await build("x");
  });

  it("ends what is under way when it is closed", async () => {
    const building = build("x");
    const ended = assert.rejects(building);
    await new Promise((resolve) => setTimeout(resolve, 20));
    await workers[Symbol.asyncDispose]();
    await ended;
    assert.deepEqual(await readdir(dir), []);
  });
});
