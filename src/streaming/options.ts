export interface StreamingOptions {
  /** IPv4 or IPv6 literal that pods cannot reach. */
  readonly address: string;
  /** 0: any free one. */
  readonly port: number;
  /** Default 4 h without a byte either way. */
  readonly idleTimeoutMs?: number;
  /** Default 30 s for the streams that a request needs. */
  readonly streamCreationTimeoutMs?: number;
}

export const IDLE_TIMEOUT_MS = 4 * 60 * 60 * 1000;
export const STREAM_CREATION_TIMEOUT_MS = 30_000;
