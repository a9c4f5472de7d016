import type { StreamRequest } from "../../runtime/stream-request.ts";
import { headOf, mutateHead } from "./http.ts";
import { mutate } from "./mutate.ts";
import { Random } from "./random.ts";
import { forwardRequest, processRequest } from "./requests.ts";
import { SPDY_LIES, spdyForwarding, spdyProcess, spdyTrouble } from "./spdy.ts";
import { inWebSocket, WEBSOCKET_LIES, websocketForwarding, websocketProcess, websocketTrouble } from "./websocket.ts";

/** What one client does, from its connection to its end. All of it follows from the seed. */
export interface Script {
  readonly seed: number;
  /** In words, for a person who looks into a failure. */
  readonly what: string;
  readonly request: StreamRequest;
  /** The request's head for the path that the server gave out. */
  readonly head: (path: string) => Buffer;
  readonly pieces: readonly Buffer[];
  /** When the pieces come: with the head, after the server has answered it, or cut into little ones. */
  readonly pace: "at once" | "after the answer" | "bit by bit";
  readonly reads: boolean;
  readonly ending: "half-close" | "wait" | "close" | "reset";
}

type Conversation = Pick<Script, "what" | "request" | "head" | "pieces">;

/** A fifth of the clients keeps to the protocol, so that the others are known to come far. */
export function scriptOf(seed: number): Script {
  const random = new Random(seed);
  const mutations = random.chance(1 / 5) ? 0 : 1 + random.skewed(12);
  return {
    seed,
    ...conversation(random, mutations),
    pace: random.pick(["after the answer", "after the answer", "at once", "bit by bit"]),
    reads: random.chance(0.9),
    ending: random.pick(["half-close", "wait", "wait", "close", "reset"]),
  };
}

function conversation(random: Random, mutations: number): Conversation {
  const kind = random.below(20);
  if (kind < 7) return overSpdy(random, mutations);
  if (kind < 12) return forwardOverSpdy(random, mutations);
  if (kind < 16) return overWebSocket(random, mutations);
  if (kind < 17) return forwardOverWebSocket(random, mutations);
  if (kind < 18) return tunnelled(random, mutations);
  if (kind < 19) return badHead(random, mutations);
  return noise(random);
}

function overSpdy(random: Random, mutations: number): Conversation {
  const request = processRequest(random);
  const protocol = random.pick(["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io", "v9.channel.k8s.io"]);
  const pieces = mutate(random, spdyProcess(random, request), { count: mutations, lies: SPDY_LIES, trouble: spdyTrouble });
  return { what: `${request.kind} over SPDY ${protocol}`, request, head: headOf({ upgrade: "SPDY/3.1", protocol }), pieces };
}

function forwardOverSpdy(random: Random, mutations: number): Conversation {
  const request = forwardRequest(random);
  const pieces = mutate(random, spdyForwarding(random), { count: mutations, lies: SPDY_LIES, trouble: spdyTrouble });
  return { what: "port-forward over SPDY", request, head: headOf({ upgrade: "SPDY/3.1", protocol: "portforward.k8s.io" }), pieces };
}

function overWebSocket(random: Random, mutations: number): Conversation {
  const request = processRequest(random);
  const protocol = random.pick([
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "base64.channel.k8s.io",
    "",
  ]);
  const frames = websocketProcess(random, request, protocol);
  const pieces = mutate(random, frames, { count: mutations, lies: WEBSOCKET_LIES, trouble: websocketTrouble });
  return { what: `${request.kind} over WebSocket '${protocol}'`, request, head: headOf({ upgrade: "websocket", protocol }), pieces };
}

function forwardOverWebSocket(random: Random, mutations: number): Conversation {
  const request = forwardRequest(random);
  const protocol = random.pick(["v4.channel.k8s.io", "v4.base64.channel.k8s.io"]);
  const frames = websocketForwarding(random, request.ports, protocol);
  const pieces = mutate(random, frames, { count: mutations, lies: WEBSOCKET_LIES, trouble: websocketTrouble });
  return { what: `port-forward over WebSocket '${protocol}'`, request, head: headOf({ upgrade: "websocket", protocol }), pieces };
}

/** SPDY that is broken inside WebSocket that is sound, or the other way round. */
function tunnelled(random: Random, mutations: number): Conversation {
  const inside = random.chance(0.6) ? mutations : 0;
  const spdy = mutate(random, spdyForwarding(random), { count: inside, lies: SPDY_LIES, trouble: spdyTrouble });
  const frames = inWebSocket(random, spdy);
  const pieces = mutate(random, frames, { count: mutations - inside, lies: WEBSOCKET_LIES, trouble: websocketTrouble });
  const head = headOf({ upgrade: "websocket", protocol: "SPDY/3.1+portforward.k8s.io" });
  return { what: "port-forward over SPDY in WebSocket", request: forwardRequest(random), head, pieces };
}

function badHead(random: Random, mutations: number): Conversation {
  const request = random.chance(0.5) ? processRequest(random) : forwardRequest(random);
  const sound = headOf(
    random.chance(0.5) ? { upgrade: "SPDY/3.1", protocol: "v4.channel.k8s.io" } : { upgrade: "websocket", protocol: "v5.channel.k8s.io" },
  );
  const seed = random.next();
  const head = (path: string) => mutateHead(new Random(seed), sound(path), 1 + mutations);
  return { what: `${request.kind} with a broken head`, request, head, pieces: spdyForwarding(random) };
}

function noise(random: Random): Conversation {
  const upgraded = random.chance(0.5);
  const sound = headOf({ upgrade: random.pick(["SPDY/3.1", "websocket"]), protocol: "v4.channel.k8s.io" });
  const garbage = random.bytes(random.skewed(4096));
  const pieces = Array.from({ length: random.below(8) }, () => random.bytes(random.skewed(16_384)));
  return { what: "noise", request: processRequest(random), head: upgraded ? sound : () => garbage, pieces };
}
