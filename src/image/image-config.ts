import { z } from "zod";

import type { ImageConfig } from "../runtime/ports.ts";
import { type Digest, isDigest } from "./digest.ts";
import { manifestError, type Platform } from "./manifest.ts";

/** What an image config document says, as far as we act on it. */
export interface ParsedConfig {
  readonly config: ImageConfig;
  /** Lowest first. */
  readonly diffIds: readonly Digest[];
  /** Undefined where the document does not say. */
  readonly platform: Platform | undefined;
}

const strings = z.array(z.string()).nullish();
const schema = z.object({
  os: z.string().nullish(),
  architecture: z.string().nullish(),
  variant: z.string().nullish(),
  rootfs: z.object({ diff_ids: z.array(z.string().refine(isDigest, "must be a sha256 digest")) }),
  config: z
    .object({
      User: z.string().nullish(),
      Env: strings,
      Entrypoint: strings,
      Cmd: strings,
      WorkingDir: z.string().nullish(),
      StopSignal: z.string().nullish(),
      Volumes: z.record(z.string(), z.unknown()).nullish(),
      Labels: z.record(z.string(), z.string()).nullish(),
    })
    .nullish(),
});

export function parseImageConfig(text: string): ParsedConfig {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw manifestError("the image config is not JSON", error);
  }
  const result = schema.safeParse(json);
  if (!result.success) {
    const issue = result.error.issues[0];
    throw manifestError(`the image config: ${issue?.path.join(".") ?? ""}: ${issue?.message ?? "is malformed"}`);
  }
  const { config, rootfs, os, architecture, variant } = result.data;
  const known = os !== null && os !== undefined && os !== "" && architecture !== null && architecture !== undefined && architecture !== "";
  return {
    config: {
      user: config?.User ?? "",
      env: config?.Env ?? [],
      entrypoint: config?.Entrypoint ?? [],
      cmd: config?.Cmd ?? [],
      workingDir: config?.WorkingDir ?? "",
      stopSignal: config?.StopSignal ?? "",
      volumes: Object.keys(config?.Volumes ?? {}).sort(),
      labels: config?.Labels ?? {},
    },
    diffIds: rootfs.diff_ids.filter(isDigest),
    platform: known ? { os, architecture, variant: variant ?? "" } : undefined,
  };
}
