import type { Metrics } from "../runtime/ports.ts";

/** Used while no one may ask: counts nothing, and costs nothing. */
export const noMetrics: Metrics = { podPlaced() {}, startPhase() {} };
