import type { Container } from "../harness/container.ts";
import { stallStdins } from "../harness/exec-client.ts";
import type { Node } from "../harness/node.ts";
import { percentile } from "./statistics.ts";

const STALLED = 200;
const GOAL = 1.2;

/** ExecSync of `/bin/true` in two pods in turn, in milliseconds. */
export interface StalledTimes {
  /** In a pod with as many execs whose stdin nobody reads as there are. */
  readonly besideMs: readonly number[];
  readonly aloneMs: readonly number[];
}

export async function measureStalled(
  node: Node,
  containers: { readonly beside: Container; readonly alone: Container },
  rounds: number,
): Promise<StalledTimes> {
  using _ = await stallStdins(node, containers.beside, STALLED);
  const [besideMs, aloneMs]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? ([true, false] as const) : ([false, true] as const);
    for (const isBeside of order) {
      const begunMs = performance.now();
      await (isBeside ? containers.beside : containers.alone).exec(["/bin/true"]);
      (isBeside ? besideMs : aloneMs).push(performance.now() - begunMs);
    }
  }
  return { besideMs, aloneMs };
}

export function renderStalled(mode: "flat" | "microVM", { besideMs, aloneMs }: StalledTimes): string {
  const ratios = besideMs.map((ms, index) => ms / (aloneMs[index] ?? Number.NaN));
  const row = (name: string, values: readonly number[], ratio: string) =>
    `| ${name} | ${values.length} | ${percentile(values, 50).toFixed(1)} | ${percentile(values, 99).toFixed(1)} | ${ratio} |`;
  return [
    `| ExecSync \`/bin/true\`, ${mode} | n | p50 ms | p99 ms | ratio, paired p50 |`,
    "| --- | --: | --: | --: | --: |",
    row(`beside ${STALLED} execs of the pod whose stdin nobody reads`, besideMs, `**${percentile(ratios, 50).toFixed(2)}** (goal ${GOAL})`),
    row("in a pod without them", aloneMs, "1"),
  ].join("\n");
}
