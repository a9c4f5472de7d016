import { z } from "zod";
import { atLeast } from "./cni-version.ts";
import { resultError } from "./errors.ts";

/** The result of ADD, any version from 0.3.0 on: what we read of it, the rest carried along. Source: CNI spec, section 5. */
export type CniResult = z.infer<typeof resultSchema>;

const resultSchema = z.looseObject({
  cniVersion: z.string().optional(),
  interfaces: z.array(z.looseObject({ name: z.string(), sandbox: z.string().optional() })).nullish(),
  ips: z.array(z.looseObject({ address: z.string(), interface: z.number().int().nullish() })).nullish(),
});

/** Checks what a plugin printed and brings it to the version of the list, which is what the next plugin expects. */
export function parseResult(json: unknown, cniVersion: string): CniResult {
  const parsed = resultSchema.safeParse(json);
  if (parsed.success) return convertResult(parsed.data, cniVersion);
  const issue = parsed.error.issues[0];
  throw resultError(`${issue?.path.join(".") || "the document"}: ${issue?.message ?? "is invalid"}`);
}

/** Before 1.0.0 each entry of `ips` says its family in `version`; since then it must not. Nothing else differs. */
export function convertResult(result: CniResult, cniVersion: string): CniResult {
  if (result.ips === undefined || result.ips === null) return { ...result, cniVersion };
  const ips = result.ips.map(({ version: _version, ...ip }) => {
    return atLeast(cniVersion, "1.0.0") ? ip : { version: ip.address.includes(":") ? "6" : "4", ...ip };
  });
  return { ...result, cniVersion, ips };
}

/**
 * The pod's addresses, without prefix lengths, in the order of the result: those of the pod's interface inside the sandbox. Plugins
 * that name no interface for an address mean that one.
 */
export function podIps(result: CniResult, interfaceName: string): readonly string[] {
  const ips = (result.ips ?? []).filter(({ interface: index }) => {
    if (index === undefined || index === null) return true;
    const link = result.interfaces?.[index];
    if (link === undefined) throw resultError(`an address belongs to interface ${index}, which is not in the list`);
    return link.name === interfaceName && link.sandbox !== undefined && link.sandbox !== "";
  });
  if (ips.length === 0) throw resultError(`no address for ${interfaceName} in the pod: check the ipam section of the configuration`);
  return ips.map(({ address }) => address.split("/")[0] ?? address);
}
