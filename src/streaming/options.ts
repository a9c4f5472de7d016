export interface StreamingOptions {
  /** IPv4 or IPv6 literal of the loopback interface: pods cannot reach it. */
  readonly address: string;
  /** 0: any free one. */
  readonly port: number;
  /** Plain HTTP without. */
  readonly tls?: TlsFiles | undefined;
  /** Default 4 h without a byte either way. 0: never. */
  readonly idleTimeoutMs?: number;
  /** Default 30 s for the streams that a request needs. */
  readonly streamCreationTimeoutMs?: number;
  /** Default 15 s between two looks whether a client is still there whose connection is not read meanwhile. */
  readonly probeIntervalMs?: number;
  /** Default 3 s that sessions have to end by themselves when the daemon stops. */
  readonly drainTimeoutMs?: number;
  /** Default 1000 open at a time. */
  readonly maxSessions?: number;
}

/** Absolute paths of PEM files. */
export interface TlsFiles {
  /** The certificate, then what it is signed by. */
  readonly certFile: string;
  readonly keyFile: string;
}

export const IDLE_TIMEOUT_MS = 4 * 60 * 60 * 1000;
export const STREAM_CREATION_TIMEOUT_MS = 30_000;
export const PROBE_INTERVAL_MS = 15_000;
export const DRAIN_TIMEOUT_MS = 3_000;
export const MAX_SESSIONS = 1000;
