import type { ContainerSummary, PodExplanation } from "../runtime/explain.ts";
import type { Phase } from "../runtime/timeline.ts";
import { printable } from "./outcome.ts";
import type { Finding } from "./why.ts";

/** For a person: what, where and why first, then the steps of the start. */
export function renderWhy({ source, explanation, otherAttempts }: Finding): string {
  const { name, namespace, attempt, id, uid, handler, isolation, reason, message, createdAtNs, timeline, containers } = explanation;
  const facts: readonly (readonly [string, string])[] = [
    ["pod", `${namespace}/${name}, attempt ${attempt}`],
    ["id", id],
    ["uid", uid],
    ["handler", handler === "" ? "the default" : handler],
    ["isolation", isolation],
    ["reason", reason],
    ["message", message],
    ["state", stateOf(source, explanation)],
    ["created", timeOf(createdAtNs)],
  ];
  const lines = [
    ...facts.map(([label, value]) => `${label.padEnd(11)}${printable(value)}`),
    "",
    ...steps("its start", timeline),
    ...containers.flatMap((container) => ["", ...steps(titleOf(container), container.timeline)]),
    ...(otherAttempts.length === 0 ? [] : ["", "other attempts of this pod"]),
    ...otherAttempts.map((other) =>
      printable(`  ${other.attempt}  ${timeOf(other.createdAtNs)}  ${other.isolation}  ${other.reason}  ${other.id}`),
    ),
  ];
  return `${lines.join("\n")}\n`;
}

function stateOf(source: Finding["source"], { phase, crash }: PodExplanation): string {
  const crashed = crash === undefined ? "" : `, NOTREADY by itself: ${crash.reason}: ${crash.message}`;
  if (source !== "history") return `${phase}${crashed}`;
  return phase === "creating" ? "gone: it failed to start" : `gone${crashed}`;
}

function titleOf({ name, attempt, image, phase, exit }: ContainerSummary): string {
  const end = exit === undefined ? "" : ` with code ${exit.code} (${exit.reason}) at ${timeOf(exit.finishedAtNs)}`;
  return `container ${name}, attempt ${attempt}, ${image}: ${phase}${end}`;
}

/** A table of steps; times count from the beginning of the first. */
function steps(title: string, phases: readonly Phase[]): readonly string[] {
  const originNs = phases[0]?.startedAtNs ?? "0";
  const rows = phases.flatMap(({ name, startedAtNs, durationMs, failure }) => {
    const atMs = Number((BigInt(startedAtNs) - BigInt(originNs)) / 1000n) / 1000;
    const row = `  ${name.padEnd(14)}${`+${atMs.toFixed(1)} ms`.padStart(12)}${`${durationMs.toFixed(1)} ms`.padStart(12)}`;
    return failure === undefined ? [row] : [`${row}  FAILED`, `      ${printable(failure)}`];
  });
  const head = rows.length === 0 ? [] : [`  ${"step".padEnd(14)}${"began".padStart(12)}${"took".padStart(12)}`];
  return [printable(title), ...head, ...rows];
}

function timeOf(ns: string): string {
  return new Date(Number(BigInt(ns) / 1_000_000n)).toISOString();
}
