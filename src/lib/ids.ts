import { randomBytes } from "node:crypto";

/** 64 random hex characters, the convention for pod and container ids. */
export function newId(): string {
  return randomBytes(32).toString("hex");
}

export type PrefixMatch =
  | { readonly kind: "found"; readonly id: string }
  | { readonly kind: "none" }
  | { readonly kind: "ambiguous"; readonly ids: readonly [string, string] };

/** The one id that is `prefix` or begins with it. An empty prefix matches nothing: in CRI it means that the field was left out. */
export function resolvePrefix(ids: Iterable<string>, prefix: string): PrefixMatch {
  if (prefix === "") return { kind: "none" };
  let first: string | undefined;
  let second: string | undefined;
  for (const id of ids) {
    if (id === prefix) return { kind: "found", id };
    if (!id.startsWith(prefix)) continue;
    if (first === undefined) first = id;
    else second ??= id;
  }
  if (first === undefined) return { kind: "none" };
  return second === undefined ? { kind: "found", id: first } : { kind: "ambiguous", ids: [first, second] };
}
