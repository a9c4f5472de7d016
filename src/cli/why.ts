import { messageOf } from "../lib/coded-error.ts";
import { resolvePrefix } from "../lib/ids.ts";
import type { PodExplanation } from "../runtime/explain.ts";
import { CriClient } from "./cri-client.ts";
import { asExplanation, type KnownPod, type KnownPods, readKnownPods } from "./known-pods.ts";
import { answered, failed, type Outcome } from "./outcome.ts";
import { renderWhy } from "./render-why.ts";

export interface WhyRequest {
  /** An id, a prefix of one, or NAMESPACE/NAME, which is the newest of that name. */
  readonly pod: string;
  readonly json: boolean;
}

export interface WhyOptions {
  readonly root: string;
  /** Path of the daemon's socket. */
  readonly listen: string;
}

/** What was found out, and by whom: the daemon, the pod's record in the root directory, or the history of those that are gone. */
export interface Finding {
  readonly source: "daemon" | KnownPod["source"];
  readonly explanation: PodExplanation;
  /** Other attempts of the same pod that are known, the newest first. */
  readonly otherAttempts: readonly PodExplanation[];
}

/** Where a pod runs and why, and how its start went. Asks the daemon; of pods that it does not know, or without it, the root directory tells. */
export async function why(request: WhyRequest, options: WhyOptions): Promise<Outcome> {
  using client = new CriClient(options.listen);
  const live = await askDaemon(client, request.pod);
  if (live.kind === "refused") return failed(live.message);
  let known: KnownPods;
  try {
    known = await readKnownPods(options.root);
  } catch (error) {
    // A daemon's answer is enough; its directory belongs to root.
    if (live.kind === "answer") known = { pods: new Map(), bad: [] };
    else return failed(`${daemonSays(live)}, and its directory ${options.root} cannot be read: ${messageOf(error)}`);
  }
  const found = live.kind === "answer" ? { source: "daemon" as const, explanation: live.response } : choose(request.pod, known);
  if (typeof found === "string")
    return failed([found, `${daemonSays(live)}; looked in ${options.root}`, ...known.bad].join("\naurae-cri: "));
  const finding = { ...found, otherAttempts: othersOf(found.explanation, known) };
  const note = live.kind === "down" ? `aurae-cri: ${daemonSays(live)}: this is what its records say\n` : "";
  return { ...answered(request.json ? `${JSON.stringify(finding, undefined, 2)}\n` : renderWhy(finding)), stderr: note };
}

type Live =
  | { readonly kind: "answer"; readonly response: PodExplanation }
  | { readonly kind: "not-found" }
  | { readonly kind: "down" | "refused"; readonly message: string };

async function askDaemon(client: CriClient, pod: string): Promise<Live> {
  const id = await idOf(client, pod);
  if (typeof id !== "string") return id;
  const answer = await client.podStatus(id);
  if (answer.kind !== "answer") return answer;
  const text = answer.response.info["why"];
  if (text === undefined) return { kind: "refused", message: "what serves this socket is not an aurae-cri that explains its pods" };
  return { kind: "answer", response: asExplanation(JSON.parse(text)) };
}

async function idOf(client: CriClient, pod: string): Promise<string | Live> {
  if (!pod.includes("/")) return pod;
  const listed = await client.pods();
  if (listed.kind !== "answer") return listed;
  const named = listed.response.items.filter(({ metadata }) => `${metadata?.namespace}/${metadata?.name}` === pod);
  const [newest] = named.sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1));
  return newest === undefined ? { kind: "not-found" } : newest.id;
}

function daemonSays(live: Live): string {
  return live.kind === "down" ? `the daemon does not answer (${live.message})` : "the daemon does not know it";
}

/** The one pod meant, or what is wrong with the question. */
function choose(pod: string, { pods }: KnownPods): KnownPod | string {
  if (pod.includes("/")) {
    const named = [...pods.values()].filter(({ explanation }) => `${explanation.namespace}/${explanation.name}` === pod);
    return named.sort((a, b) => newestFirst(a.explanation, b.explanation))[0] ?? `no pod '${pod}' is known`;
  }
  const match = resolvePrefix(pods.keys(), pod);
  switch (match.kind) {
    case "found":
      return pods.get(match.id) ?? `no pod '${pod}' is known`;
    case "ambiguous":
      return `'${pod}' is ambiguous, it begins ${match.ids.join(" and ")}: give more of it`;
    case "none":
      return `no pod '${pod}' is known: give its id, a prefix of it, or NAMESPACE/NAME`;
  }
}

const MAX_OTHERS = 5;

function othersOf({ id, uid }: PodExplanation, { pods }: KnownPods): readonly PodExplanation[] {
  const others = [...pods.values()]
    .map(({ explanation }) => explanation)
    .filter((other) => other.uid === uid && uid !== "" && other.id !== id);
  return others.sort(newestFirst).slice(0, MAX_OTHERS);
}

function newestFirst(a: PodExplanation, b: PodExplanation): number {
  return BigInt(a.createdAtNs) < BigInt(b.createdAtNs) ? 1 : -1;
}
