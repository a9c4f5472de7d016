import { z } from "zod";

import { invalid } from "../../errors.ts";
import type { OciSpecInput } from "../input.ts";
import type { OciSeccomp } from "../types.ts";
import { defaultProfile } from "./default-profile.ts";

const FIELD = "config.linux.security_context.seccomp";

const action = z.string().regex(/^SCMP_ACT_[A-Z_]+$/);
const uint = z.number().int().min(0);

const profileSchema = z.object({
  defaultAction: action,
  defaultErrnoRet: uint.optional(),
  architectures: z.array(z.string().regex(/^SCMP_ARCH_[A-Z0-9_]+$/)).optional(),
  flags: z.array(z.string()).optional(),
  listenerPath: z.string().optional(),
  listenerMetadata: z.string().optional(),
  syscalls: z
    .array(
      z.object({
        names: z.array(z.string().min(1)).min(1),
        action,
        errnoRet: uint.optional(),
        args: z
          .array(
            z.object({
              index: uint.max(5),
              value: uint,
              valueTwo: uint.optional(),
              op: z.string().regex(/^SCMP_CMP_[A-Z_]+$/),
            }),
          )
          .nullish()
          .transform((args) => args ?? undefined),
      }),
    )
    .optional(),
});

/** The container's filter; undefined: none. `capabilities` is its bounding set. */
export function ociSeccomp({ container, host, seccompProfile }: OciSpecInput, capabilities: readonly string[]): OciSeccomp | undefined {
  const { privileged, seccomp } = container.security;
  if (privileged || seccomp.type === "none" || seccomp.type === "unconfined") return undefined;
  if (!host.seccomp) throw invalid(FIELD, "this node's kernel has no seccomp: use Unconfined, or a node that has it");
  if (seccomp.type === "runtime-default") return defaultProfile(host.arch, new Set(capabilities));
  if (seccompProfile === undefined) throw new TypeError("seccompProfile is missing");
  return parseProfile(seccomp.reference, seccompProfile);
}

/** A profile file in OCI's own form. Members it does not know are left out. */
function parseProfile(path: string, text: string): OciSeccomp {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw invalid(`${FIELD}.localhost_ref`, `${path} is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  const parsed = profileSchema.safeParse(document);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw invalid(`${FIELD}.localhost_ref`, `${path} is not a seccomp profile: ${issue?.path.join(".") ?? ""}: ${issue?.message ?? ""}`);
}
