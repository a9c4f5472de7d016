import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

import type { Metrics, PodMode } from "../runtime/ports.ts";
import type { MetricsSource } from "./options.ts";

/** From a file written to a cold boot under software emulation. */
const PHASE_BUCKETS_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

/** The daemon's metrics in Prometheus' words. A registry of its own, so that nothing that is loaded along adds to it. */
export class PodMetrics implements Metrics {
  readonly #registry = new Registry();
  readonly #placed = new Counter({
    name: "aurae_cri_pods_placed_total",
    help: "Decisions where a pod runs: its mode (microvm, flat, refused), the reason, and the runtime handler asked for.",
    labelNames: ["mode", "reason", "handler"] as const,
    registers: [this.#registry],
  });
  readonly #phases = new Histogram({
    name: "aurae_cri_pod_start_phase_seconds",
    help: "Duration of the steps of starting pods and their containers, of those that succeeded.",
    labelNames: ["mode", "phase"] as const,
    buckets: PHASE_BUCKETS_SECONDS,
    registers: [this.#registry],
  });

  constructor(source: MetricsSource) {
    this.#registry.registerMetric(podsGauge(source));
    this.#registry.registerMetric(virtualizationGauge(source));
    collectDefaultMetrics({ register: this.#registry });
  }

  podPlaced(labels: { readonly mode: PodMode | "refused"; readonly reason: string; readonly handler: string }): void {
    this.#placed.inc(labels);
  }

  startPhase({ mode, phase, seconds }: { readonly mode: PodMode; readonly phase: string; readonly seconds: number }): void {
    this.#phases.observe({ mode, phase }, seconds);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Everything, in the text format. */
  render(): Promise<string> {
    return this.#registry.metrics();
  }
}

function podsGauge(source: MetricsSource): Gauge {
  return new Gauge({
    name: "aurae_cri_pods",
    help: "Pod sandboxes on record, by mode and state.",
    labelNames: ["mode", "state"],
    registers: [],
    collect() {
      this.reset();
      for (const { mode, state } of source.pods()) this.inc({ mode, state });
    },
  });
}

function virtualizationGauge(source: MetricsSource): Gauge {
  return new Gauge({
    name: "aurae_cri_virtualization_available",
    help: "1 when this node can run microVMs, 0 when it cannot or the trial boot has not ended.",
    registers: [],
    collect() {
      this.set(source.virtualization().state === "available" ? 1 : 0);
    },
  });
}
