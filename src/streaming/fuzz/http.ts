import { flipBytes } from "./mutate.ts";
import type { Random } from "./random.ts";

/** The head of a client that asks for a stream. */
export function headOf(ask: { readonly upgrade: "SPDY/3.1" | "websocket"; readonly protocol: string }): (path: string) => Buffer {
  const lines =
    ask.upgrade === "websocket"
      ? ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", `Sec-WebSocket-Protocol: ${ask.protocol}`]
      : [`X-Stream-Protocol-Version: ${ask.protocol}`];
  if (ask.protocol === "") lines.pop();
  const method = ask.upgrade === "websocket" ? "GET" : "POST";
  return (path) =>
    Buffer.from([`${method} ${path} HTTP/1.1`, "Host: x", "Connection: Upgrade", `Upgrade: ${ask.upgrade}`, ...lines, "", ""].join("\r\n"));
}

type Change = (random: Random, lines: readonly string[]) => readonly string[];

const EXTRAS: readonly [string, ...string[]] = [
  "Upgrade: h2c",
  "Upgrade: SPDY/3.1, websocket",
  "Connection: close",
  "Connection: keep-alive, Upgrade",
  "Content-Length: 5",
  "Content-Length: 99999999999999999999",
  "Content-Length: -1",
  "Transfer-Encoding: chunked",
  "Expect: 100-continue",
  "X-Stream-Protocol-Version: ,,,",
  "Sec-WebSocket-Protocol: ,v5.channel.k8s.io,,",
  "Sec-WebSocket-Protocol: \u00e9\u00ff",
  "Sec-WebSocket-Key: short",
  "Sec-WebSocket-Version: 7",
  "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover",
  " folded: line",
  "no colon",
  "Host: y",
];

const CHANGES: readonly [Change, ...Change[]] = [
  (random, lines) => lines.toSpliced(1 + random.below(lines.length - 1), 1),
  (random, lines) => lines.toSpliced(1 + random.below(lines.length), 0, random.pick(EXTRAS)),
  (random, lines) => lines.toSpliced(1, 0, `X-Long: ${"x".repeat(random.skewed(100_000))}`),
  (random, lines) => [lines[0] ?? "", ...Array.from({ length: random.skewed(3000) }, (_, index) => `X-${index}: y`), ...lines.slice(1)],
  (random, lines) =>
    lines.map((line, index) => (index === 0 ? line.replace(/^\w+/, random.pick(["GET", "POST", "PUT", "CONNECT", "PRI", ""])) : line)),
  (random, lines) =>
    lines.map((line, index) => (index === 0 ? line.replace(/HTTP\/1.1$/, random.pick(["HTTP/1.0", "HTTP/2.0", "HTTP/9.9", ""])) : line)),
  (random, lines) =>
    lines.map((line, index) =>
      index === 0
        ? line.replace(/ \/\S*/, random.pick([" /", " *", " //", " /exec", " /exec/%00", " /exec/../exec/x", ` /${"a/".repeat(2000)}`]))
        : line,
    ),
  (_, lines) => lines.map((line) => line.toUpperCase()),
];

export function mutateHead(random: Random, head: Buffer, count: number): Buffer {
  let lines: readonly string[] = head.toString("latin1").trimEnd().split("\r\n");
  for (let index = 0; index < count; index++) lines = random.pick(CHANGES)(random, lines);
  const bytes = Buffer.from(`${lines.join(random.chance(0.1) ? "\n" : "\r\n")}\r\n${random.chance(0.1) ? "" : "\r\n"}`, "latin1");
  return random.chance(0.2) ? flipBytes(random, bytes) : bytes;
}
