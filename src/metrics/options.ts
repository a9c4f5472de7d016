import type { PodMode, VirtualizationReport } from "../runtime/ports.ts";

export interface MetricsOptions {
  /** IPv4 or IPv6 literal. */
  readonly address: string;
  /** 1 to 65535. */
  readonly port: number;
}

/** What is looked at when somebody asks, instead of being counted along. */
export interface MetricsSource {
  pods(): Iterable<{ readonly mode: PodMode; readonly state: string }>;
  virtualization(): VirtualizationReport;
}
