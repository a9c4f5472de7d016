import type { Platform } from "./manifest.ts";

/** What the image room is built with. */
export interface ImageOptions {
  /** Durable state: layer blobs are under `<root>/layers/sha256`. */
  readonly root: string;
  /** State of this boot: layers are mounted at `<stateDir>/layers/<hex>`. */
  readonly stateDir: string;
  /** Directories of `hosts.toml` files, as containerd lays them out, colon separated; empty for none. */
  readonly registryConfigPath: string;
  readonly platform: Platform;
  /** Patterns (`*` for any text) of fully qualified tags that must never be collected. */
  readonly pinnedImages: readonly string[];
  /** Of one pull, fetched and built side by side. */
  readonly maxLayersAtOnce: number;
  /** A transfer that moves nothing for so long is broken off. There is no limit in all. */
  readonly noProgressTimeoutMs: number;
  /** Attempts per request, the first included. */
  readonly attempts: number;
  readonly retryBaseMs: number;
  readonly retryMaxMs: number;
  /** Bound of one layer, unpacked. */
  readonly maxLayerBytes: number;
  /** Bound of files and directories in one layer: what the writer keeps in memory. */
  readonly maxLayerEntries: number;
}

/** Everything with a default, for the caller to spread under its own. */
export const imageDefaults = {
  registryConfigPath: "",
  pinnedImages: [],
  maxLayersAtOnce: 3,
  noProgressTimeoutMs: 300_000,
  attempts: 5,
  retryBaseMs: 500,
  retryMaxMs: 30_000,
  maxLayerBytes: 256 * 2 ** 30,
  maxLayerEntries: 2_000_000,
} as const satisfies Partial<ImageOptions>;
