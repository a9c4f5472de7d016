export interface StreamingOptions {
  /** IPv4 or IPv6 literal that pods cannot reach. */
  readonly address: string;
  /** 0: any free one. */
  readonly port: number;
  /** Default 4 h without a byte either way. */
  readonly idleTimeoutMs?: number;
  /** Default 30 s for the streams that a request needs. */
  readonly streamCreationTimeoutMs?: number;
  /** Default 15 s between two looks whether a client is still there whose connection is not read meanwhile. */
  readonly probeIntervalMs?: number;
}

export const IDLE_TIMEOUT_MS = 4 * 60 * 60 * 1000;
export const STREAM_CREATION_TIMEOUT_MS = 30_000;
export const PROBE_INTERVAL_MS = 15_000;
