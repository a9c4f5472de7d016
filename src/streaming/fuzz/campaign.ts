import { setTimeout as delay } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import { FakeAuraed } from "../../agent/fake-auraed.ts";
import { type Log, type LogFields, silentLog } from "../../lib/log.ts";
import type { Runtime } from "../../runtime/runtime.ts";
import { openStreaming } from "../server.ts";
import { TOKEN_LIFETIME_MS } from "../tokens.ts";
import { play } from "./client.ts";
import { CONTAINER_ID, POD_IDS } from "./requests.ts";
import { type Script, scriptOf } from "./script.ts";

/** Clients at a time. */
const BATCH = 64;
/** Within which every client has done its part. */
const PLAY_MS = 20_000;
/** Within which nothing is left of a batch whose clients have gone. */
const SETTLE_MS = 5_000;
const POLL_MS = 5;
/** Over what the process holds after its first batches, when the garbage is collected. */
const MAX_GROWTH_BYTES = 256 * 1024 * 1024;
/** Buffers of what was collected are freed on a thread of its own. */
const FREE_MS = 200;
/** What may stay when all is over and the garbage is collected. */
const MAX_RESIDUE_BYTES = 64 * 1024 * 1024;
const WARM_UP_BATCHES = 5;

export interface Campaign {
  readonly firstSeed: number;
  /** Told at once, with the seeds: what nobody catches may end a test, and a session that hangs holds the server's end up. */
  readonly onFinding: (finding: Error) => void;
  /** It ends with the batch that is under way. */
  readonly durationMs: number;
}

/** What a campaign without a finding did. */
export interface Report {
  readonly cases: number;
  /** Sessions by how they ended. */
  readonly outcomes: ReadonlyMap<string, number>;
  readonly peakBytes: number;
  readonly residueBytes: number;
}

/**
 * Lets clients by ascending seeds loose on the streaming server, with fake auraeds behind it, a few at a time. Throws an error that names the
 * seeds when something is thrown that nobody catches, when sessions, connections or calls outlive their clients, or when memory grows.
 */
export async function fuzz(campaign: Campaign): Promise<Report> {
  await using flat = await FakeAuraed.listen();
  await using guest = await FakeAuraed.listen();
  const outcomes = new Map<string, number>();
  const options = { address: "127.0.0.1", port: 0, streamCreationTimeoutMs: 500, probeIntervalMs: 100 };
  let clockMs = 0;
  const modules = { runtime: runtimeWith({ flat, guest }), log: countOutcomes(outcomes), nowMs: () => clockMs };
  await using server = await openStreaming(options, modules);
  using thrown = new Thrown(campaign.onFinding);
  const settled = settler(campaign.onFinding);
  const idle = connections();
  const collect = collector();
  let seed = campaign.firstSeed;
  let [baseBytes, heapBytes, peakBytes] = [0, 0, 0];
  const endsAtMs = performance.now() + campaign.durationMs;
  for (let batch = 0; performance.now() < endsAtMs || batch <= WARM_UP_BATCHES; batch++) {
    const scripts = Array.from({ length: BATCH }, () => scriptOf(seed++));
    thrown.watch(scripts);
    let playing = scripts.length;
    for (const script of scripts) void play(script, server.register(script.request)).then(() => playing--);
    await settled(scripts, () => playing === 0, { what: "clients", limitMs: PLAY_MS });
    await settled(scripts, () => server.openSessions === 0, { what: "sessions", limitMs: SETTLE_MS });
    await settled(scripts, () => flat.open + guest.open === 0, { what: "calls to auraed", limitMs: SETTLE_MS });
    await settled(scripts, () => connections() <= idle, { what: "connections", limitMs: SETTLE_MS });
    thrown.check();
    // Many a client never shows its token, and the server keeps so many of them and no more.
    clockMs += TOKEN_LIFETIME_MS;
    const rssBytes = process.memoryUsage.rss();
    peakBytes = Math.max(peakBytes, rssBytes);
    if (batch < WARM_UP_BATCHES) continue;
    if (batch === WARM_UP_BATCHES) [baseBytes, heapBytes] = [rssBytes, collect()];
    if (rssBytes - baseBytes <= MAX_GROWTH_BYTES) continue;
    collect();
    await delay(FREE_MS);
    const keptBytes = process.memoryUsage.rss();
    if (keptBytes - baseBytes > MAX_GROWTH_BYTES) throw finding(scripts, `the process grew from ${baseBytes} to ${keptBytes} bytes`);
  }
  const residueBytes = collect() - heapBytes;
  if (residueBytes > MAX_RESIDUE_BYTES) throw new Error(`${residueBytes} bytes are left of ${seed - campaign.firstSeed} clients`);
  return { cases: seed - campaign.firstSeed, outcomes, peakBytes, residueBytes };
}

/** A running container in a flat pod, and a pod that is reached like a guest. */
function runtimeWith(auraeds: { readonly flat: FakeAuraed; readonly guest: FakeAuraed }): Runtime {
  const [flatPod, guestPod] = POD_IDS.map((id, index) => {
    const { agent } = index === 0 ? auraeds.flat : auraeds.guest;
    const sandbox = index === 0 ? { namespaces: { network: "" } } : { guest: {} };
    return { id, agent, record: { state: { phase: "ready", sandbox } } };
  });
  const container = { id: CONTAINER_ID, pod: flatPod, record: { state: { phase: "running" } } };
  const pods = new Map([flatPod, guestPod].map((pod) => [pod?.id, pod]));
  const host = { dial: (_: string, port: number) => auraeds.flat.dial(port) };
  return { pods, host, containers: new Map([[CONTAINER_ID, container]]) } as unknown as Runtime;
}

function countOutcomes(outcomes: Map<string, number>): Log {
  const count = (_: string, fields?: LogFields) => {
    const outcome = String(fields?.["outcome"]);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  };
  return { ...silentLog, info: count, warn: count };
}

/** Sockets of this process, both ends of each, with its standard streams: those are pipes as well, made when they are first used. */
function connections(): number {
  for (const stream of [process.stdout, process.stderr]) stream.listenerCount("error");
  return process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap" || name === "PipeWrap").length;
}

function settler(onFinding: (finding: Error) => void) {
  return async (
    scripts: readonly Script[],
    isOver: () => boolean,
    wait: { readonly what: string; readonly limitMs: number },
  ): Promise<void> => {
    // Counted in turns, so that a machine that is busy elsewhere is no finding.
    for (let turn = 0; !isOver(); turn++) {
      if (turn * POLL_MS > wait.limitMs) {
        const found = finding(scripts, `${wait.what} are left after ${wait.limitMs} ms`);
        onFinding(found);
        throw found;
      }
      await delay(POLL_MS);
    }
  };
}

function finding(scripts: readonly Script[], problem: string, cause?: unknown): Error {
  const list = scripts.map(({ seed, what, pace, reads, ending }) => `${seed}: ${what}, ${pace}, ${reads ? "" : "not reading, "}${ending}`);
  return new Error(`${problem}\n  AURAE_CRI_FUZZ_SEED=${scripts[0]?.seed} repeats it; the clients were\n  ${list.join("\n  ")}`, { cause });
}

/** What was thrown where nobody catches it. */
class Thrown implements Disposable {
  readonly #onFinding: (finding: Error) => void;
  #scripts: readonly Script[] = [];
  #first: Error | undefined;
  readonly #note = (error: unknown): void => {
    this.#first ??= finding(this.#scripts, `thrown and not caught: ${String(error)}`, error);
    this.#onFinding(this.#first);
  };

  constructor(onFinding: (finding: Error) => void) {
    this.#onFinding = onFinding;
    process.on("unhandledRejection", this.#note).on("uncaughtException", this.#note);
  }

  watch(scripts: readonly Script[]): void {
    this.#scripts = scripts;
  }

  check(): void {
    if (this.#first !== undefined) throw this.#first;
  }

  [Symbol.dispose](): void {
    process.off("unhandledRejection", this.#note).off("uncaughtException", this.#note);
  }
}

/** Collects garbage and tells what is left: the heap and the buffers outside of it. */
function collector(): () => number {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  return () => {
    collect();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
}
