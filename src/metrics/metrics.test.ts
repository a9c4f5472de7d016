import assert from "node:assert/strict";
import { createServer } from "node:net";
import { test } from "node:test";

import { silentLog } from "../lib/log.ts";
import type { VirtualizationReport } from "../runtime/ports.ts";
import { PodMetrics } from "./metrics.ts";
import type { MetricsSource } from "./options.ts";
import { serveMetrics } from "./server.ts";

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  assert.ok(typeof address === "object" && address !== null);
  return address.port;
}

test("a scrape has what was counted and what is true at that moment", async () => {
  const pods: { mode: "flat" | "microvm"; state: string }[] = [{ mode: "flat", state: "ready" }];
  let report: VirtualizationReport = { state: "unknown" };
  const source: MetricsSource = { pods: () => pods, virtualization: () => report };
  const metrics = new PodMetrics(source);
  const port = await freePort();
  await using _ = await serveMetrics({ address: "127.0.0.1", port }, { metrics, log: silentLog });
  const scrape = async () => (await fetch(`http://127.0.0.1:${port}/metrics`)).text();

  metrics.podPlaced({ mode: "flat", reason: "PolicyFlat", handler: "" });
  metrics.podPlaced({ mode: "refused", reason: "UnknownHandler", handler: "unknown" });
  metrics.startPhase({ mode: "flat", phase: "network", seconds: 0.02 });
  const first = await scrape();
  assert.match(first, /^aurae_cri_pods_placed_total\{mode="flat",reason="PolicyFlat",handler=""\} 1$/m);
  assert.match(first, /^aurae_cri_pods_placed_total\{mode="refused",reason="UnknownHandler",handler="unknown"\} 1$/m);
  assert.match(first, /^aurae_cri_pods\{mode="flat",state="ready"\} 1$/m);
  assert.match(first, /^aurae_cri_pod_start_phase_seconds_bucket\{le="0\.01",mode="flat",phase="network"\} 0$/m);
  assert.match(first, /^aurae_cri_pod_start_phase_seconds_bucket\{le="0\.025",mode="flat",phase="network"\} 1$/m);
  assert.match(first, /^aurae_cri_virtualization_available 0$/m);
  assert.match(first, /^process_resident_memory_bytes \d+$/m);

  pods.splice(0, 1, { mode: "microvm", state: "ready" }, { mode: "microvm", state: "ready" });
  report = { state: "available", accelerator: "kvm", message: "" };
  const second = await scrape();
  assert.match(second, /^aurae_cri_pods\{mode="microvm",state="ready"\} 2$/m);
  assert.doesNotMatch(second, /^aurae_cri_pods\{mode="flat"/m);
  assert.match(second, /^aurae_cri_virtualization_available 1$/m);

  const elsewhere = await fetch(`http://127.0.0.1:${port}/`);
  assert.equal(elsewhere.status, 404);
  await elsewhere.text();
});

test("an address in use is an error that names the keys", async () => {
  const metrics = new PodMetrics({ pods: () => [], virtualization: () => ({ state: "unknown" }) });
  const options = { address: "127.0.0.1", port: await freePort() };
  await using _ = await serveMetrics(options, { metrics, log: silentLog });
  await assert.rejects(serveMetrics(options, { metrics, log: silentLog }), /metrics\.address or metrics\.port/);
});
