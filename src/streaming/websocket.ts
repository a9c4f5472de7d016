import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";

import { type WebSocket, WebSocketServer } from "ws";

/** More than any client puts into one message. */
const MAX_MESSAGE_BYTES = 1024 * 1024;

export const PROCESS_SUBPROTOCOLS = [
  "v5.channel.k8s.io",
  "v4.channel.k8s.io",
  "v4.base64.channel.k8s.io",
  "channel.k8s.io",
  "base64.channel.k8s.io",
] as const;
/** The bytes of a port-forward over SPDY. */
export const TUNNEL_SUBPROTOCOL = "SPDY/3.1+portforward.k8s.io";
export const PORT_FORWARD_SUBPROTOCOLS = [TUNNEL_SUBPROTOCOL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"] as const;

export function offeredSubprotocols(request: IncomingMessage): string[] {
  return (request.headers["sec-websocket-protocol"] ?? "")
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
}

/**
 * Completes the handshake. A bad one is answered by `ws` itself, and the socket closes: then there is none. The WebSocket comes paused: what
 * the client sent along with its request would be emitted, and thrown when it is bad, before anybody can listen.
 */
export function acceptWebSocket(request: IncomingMessage, socket: Duplex, subprotocol: string): Promise<WebSocket | undefined> {
  const { promise, resolve } = Promise.withResolvers<WebSocket | undefined>();
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: MAX_MESSAGE_BYTES,
    handleProtocols: () => (subprotocol === "" ? false : subprotocol),
  });
  if (subprotocol === TUNNEL_SUBPROTOCOL) {
    // The name is no token, which `ws` insists on; Kubernetes' clients insist on the name.
    delete request.headers["sec-websocket-protocol"];
    server.on("headers", (headers) => headers.push(`Sec-WebSocket-Protocol: ${subprotocol}`));
  }
  socket.once("close", () => resolve(undefined));
  // Bytes behind the request's head were put back into the socket.
  server.handleUpgrade(request, socket, Buffer.alloc(0), (websocket) => {
    websocket.pause();
    resolve(websocket);
  });
  return promise;
}
