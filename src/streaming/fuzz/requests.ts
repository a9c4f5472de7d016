import { BEHAVIOURS } from "../../agent/fake-auraed.ts";
import type { AttachStreamRequest, ExecStreamRequest, PortForwardStreamRequest } from "../../runtime/stream-request.ts";
import type { Random } from "./random.ts";

export const CONTAINER_ID = "fuzzed-container";
/** One whose auraed takes forwarded connections on a socket, one that is reached by gRPC alone. */
export const POD_IDS = ["flat-pod", "guest-pod"] as const;

export function processRequest(random: Random): ExecStreamRequest | AttachStreamRequest {
  const terminal = random.chance(0.3);
  const streams = { stdin: random.chance(0.8), stdout: random.chance(0.8), stderr: !terminal && random.chance(0.5), terminal };
  if (random.chance(0.25)) return { kind: "attach", containerId: CONTAINER_ID, ...streams };
  return { kind: "exec", containerId: CONTAINER_ID, command: [random.pick(BEHAVIOURS)], ...streams };
}

export function forwardRequest(random: Random): PortForwardStreamRequest {
  const ports = Array.from({ length: 1 + random.below(3) }, () => 1 + random.below(BEHAVIOURS.length));
  return { kind: "portforward", podId: random.pick(POD_IDS), ports };
}

/** A port behind which the fake pod behaves some way; now and then one that is none. */
export function portText(random: Random): string {
  if (random.chance(0.9)) return String(1 + random.below(BEHAVIOURS.length));
  return random.pick(["0", "65535", "65536", "-1", "1.5", "0x2", "2e0", " 2", "", "two", "9".repeat(400)]);
}
