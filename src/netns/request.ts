import { isIP } from "node:net";
import type { NetworkRequest, PortMapping } from "../runtime/ports.ts";
import { requestError } from "./errors.ts";

/** Throws ERR_NETWORK_REQUEST naming the field. Everything here ends in a file name, in CNI_ARGS or in a firewall rule. */
export function validateRequest(request: NetworkRequest): void {
  validatePodId(request.podId);
  for (const field of ["podName", "podNamespace", "podUid"] as const) {
    if (/[;=\s\p{Cc}]/u.test(request[field])) throw requestError(field, "must not hold ';', '=', blanks or control characters");
  }
  for (const [index, mapping] of request.portMappings.entries()) validatePortMapping(mapping, `port_mappings[${index}]`);
}

/** The form that CNI demands of a container id. */
export function validatePodId(podId: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(podId))
    throw requestError("podId", "must begin with a letter or digit and hold only those, '_', '.' and '-'");
}

function validatePortMapping(mapping: PortMapping, field: string): void {
  const { containerPort, hostPort, hostIp } = mapping;
  if (!Number.isInteger(hostPort) || hostPort < 0 || hostPort > 65535)
    throw requestError(`${field}.host_port`, `is ${hostPort}: want 0 to 65535`);
  if (hostPort !== 0 && (!Number.isInteger(containerPort) || containerPort < 1 || containerPort > 65535)) {
    throw requestError(`${field}.container_port`, `is ${containerPort}: want 1 to 65535`);
  }
  if (hostIp !== "" && isIP(hostIp) === 0) throw requestError(`${field}.host_ip`, `${JSON.stringify(hostIp)} is not an IP address`);
}

/** The `portMappings` capability. A host port of 0 asks for nothing. Source: CNI conventions. */
export function portMappingsCapability(mappings: readonly PortMapping[]): readonly Record<string, string | number>[] {
  return mappings
    .filter(({ hostPort }) => hostPort !== 0)
    .map(({ hostPort, containerPort, protocol, hostIp }) => ({
      hostPort,
      containerPort,
      protocol,
      ...(hostIp === "" ? {} : { hostIP: hostIp }),
    }));
}

export function cniArgs(request: Pick<NetworkRequest, "podId" | "podName" | "podNamespace" | "podUid">): string {
  return [
    "IgnoreUnknown=1",
    `K8S_POD_NAMESPACE=${request.podNamespace}`,
    `K8S_POD_NAME=${request.podName}`,
    `K8S_POD_INFRA_CONTAINER_ID=${request.podId}`,
    `K8S_POD_UID=${request.podUid}`,
  ].join(";");
}
