import { type IncomingMessage, STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";

import { unreachable } from "../lib/coded-error.ts";
import { negotiate } from "./negotiation.ts";

/** How long a client that was refused may take to close. */
const REFUSED_LINGER_MS = 1_000;

/** An answer in place of the switch of protocols. */
export interface Refusal {
  readonly status: number;
  readonly headers?: readonly (readonly [name: string, value: string])[];
  readonly text: string;
}

/** Answers a request to upgrade to SPDY. Undefined: it was refused. */
export function switchToSpdy<Protocol extends string>(
  request: IncomingMessage,
  socket: Duplex,
  supported: readonly Protocol[],
): Protocol | undefined {
  const negotiated = negotiate(request, supported);
  switch (negotiated.kind) {
    case "agreed": {
      const lines = ["Connection: Upgrade", "Upgrade: SPDY/3.1", `X-Stream-Protocol-Version: ${negotiated.protocol}`];
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join("\r\n")}\r\n\r\n`);
      return negotiated.protocol;
    }
    case "none offered":
      refuse(socket, { status: 400, text: "X-Stream-Protocol-Version is missing: name the protocols you speak" });
      return undefined;
    case "none known":
      refuse(socket, {
        status: 403,
        headers: supported.map((name) => ["X-Accepted-Stream-Protocol-Versions", name] as const),
        text: `none of the protocols offered is known here, want one of ${supported.join(", ")}`,
      });
      return undefined;
    default:
      return unreachable(negotiated);
  }
}

/** An HTTP answer on a socket that http.Server has handed over. */
export function refuse(socket: Duplex, refusal: Refusal): void {
  const text = `${refusal.text}\n`;
  const headers = [
    ...(refusal.headers ?? []),
    ["Connection", "close"],
    ["Content-Type", "text/plain"],
    ["Content-Length", String(Buffer.byteLength(text))],
  ];
  const lines = headers.map(([name, value]) => `${name}: ${value}`).join("\r\n");
  socket.end(`HTTP/1.1 ${refusal.status} ${STATUS_CODES[refusal.status] ?? ""}\r\n${lines}\r\n\r\n${text}`);
  // To the client's end: an earlier destroy would reset the connection under the answer.
  socket.resume();
  const timer = setTimeout(() => socket.destroy(), REFUSED_LINGER_MS);
  socket.once("close", () => clearTimeout(timer));
}
