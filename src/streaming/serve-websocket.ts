import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";

import { createWebSocketStream } from "ws";

import type { PortForwardStreamRequest, StreamRequest } from "../runtime/stream-request.ts";
import type { SessionContext } from "./process-session.ts";
import { servePortForwardOverSpdy } from "./spdy-port-forward.ts";
import { type Refusal, refuse } from "./upgrade.ts";
import { acceptWebSocket, offeredSubprotocols, PORT_FORWARD_SUBPROTOCOLS, PROCESS_SUBPROTOCOLS, TUNNEL_SUBPROTOCOL } from "./websocket.ts";
import { MAX_PORTS, servePortForwardOverWebSocket } from "./websocket-port-forward.ts";
import { serveProcessOverWebSocket } from "./websocket-process.ts";

interface Parts {
  readonly context: SessionContext;
  readonly timeouts: { readonly idleTimeoutMs: number; readonly streamCreationTimeoutMs: number; readonly probeIntervalMs: number };
}

/** Serves a request to upgrade to WebSocket; how it ended, as a word. */
export async function serveWebSocket(request: IncomingMessage, socket: Duplex, found: StreamRequest, parts: Parts): Promise<string> {
  const chosen = chooseSubprotocol(request, found);
  if (typeof chosen !== "string") {
    refuse(socket, chosen);
    return "refused";
  }
  const websocket = await acceptWebSocket(request, socket, chosen);
  if (websocket === undefined) return "refused";
  const { context, timeouts } = parts;
  if (found.kind !== "portforward") return (await serveProcessOverWebSocket(websocket, found, { context, ...timeouts })).kind;
  if (chosen === TUNNEL_SUBPROTOCOL) await servePortForwardOverSpdy(createWebSocketStream(websocket), found, parts);
  else await servePortForwardOverWebSocket(websocket, found, { context, ...timeouts });
  return "success";
}

/** The first of the client's list that is ours as well. The oldest clients name none, and get v1. */
function chooseSubprotocol(request: IncomingMessage, found: StreamRequest): string | Refusal {
  const supported: readonly string[] = found.kind === "portforward" ? PORT_FORWARD_SUBPROTOCOLS : PROCESS_SUBPROTOCOLS;
  const offered = offeredSubprotocols(request);
  const chosen = offered.length === 0 ? "" : offered.find((name) => supported.includes(name));
  if (chosen === undefined)
    return { status: 403, text: `none of the sub-protocols offered is known here, want one of ${supported.join(", ")}` };
  if (found.kind === "portforward" && chosen !== TUNNEL_SUBPROTOCOL) return checkPorts(found, chosen) ?? chosen;
  return chosen;
}

function checkPorts({ ports }: PortForwardStreamRequest, subprotocol: string): Refusal | undefined {
  if (ports.length === 0)
    return { status: 400, text: `name the ports in PortForwardRequest.port, or offer the sub-protocol ${TUNNEL_SUBPROTOCOL}` };
  const most = subprotocol.includes("base64.") ? MAX_PORTS.base64 : MAX_PORTS.binary;
  return ports.length > most ? { status: 400, text: `${ports.length} ports, but the channels are enough for ${most}` } : undefined;
}
