import type { IncomingMessage } from "node:http";

/** Protocols of exec and attach over SPDY, by the client's name for them. */
export const PROCESS_PROTOCOLS = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"] as const;
export type ProcessProtocol = (typeof PROCESS_PROTOCOLS)[number];
export const PORT_FORWARD_PROTOCOLS = ["portforward.k8s.io"] as const;

export type Negotiated<Protocol> =
  | { readonly kind: "agreed"; readonly protocol: Protocol }
  | { readonly kind: "none offered" }
  | { readonly kind: "none known" };

/** The first protocol of the client's list that is ours as well. */
export function negotiate<Protocol extends string>(request: IncomingMessage, supported: readonly Protocol[]): Negotiated<Protocol> {
  const offered = (request.headersDistinct["x-stream-protocol-version"] ?? [])
    .flatMap((line) => line.split(","))
    .map((name) => name.trim())
    .filter((name) => name !== "");
  if (offered.length === 0) return { kind: "none offered" };
  for (const name of offered) {
    const protocol = supported.find((candidate) => candidate === name);
    if (protocol !== undefined) return { kind: "agreed", protocol };
  }
  return { kind: "none known" };
}
