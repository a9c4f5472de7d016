import { z } from "zod";

/** What became of one spec on one runtime. */
export interface SpecResult {
  /** Containers and leaf, joined by blanks, as ginkgo prints them. */
  readonly name: string;
  readonly durationMs: number;
  readonly outcome: Outcome;
}

export type Outcome =
  | { readonly state: "passed" }
  | { readonly state: "failed"; readonly message: string }
  /** The runtime refused what only the host can give, as it is meant to. */
  | { readonly state: "not applicable"; readonly reason: string }
  | { readonly state: "skipped"; readonly reason: string };

/** One runtime or handler of the table. */
export interface Column {
  readonly title: string;
  readonly results: readonly SpecResult[];
}

export interface Totals {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly notApplicable: number;
}

/** A spec that is left out on purpose, by a part of its name. */
export interface Omission {
  readonly namePart: string;
  readonly reason: string;
}

const specReport = z.object({
  ContainerHierarchyTexts: z.array(z.string()).nullish(),
  LeafNodeType: z.string(),
  LeafNodeText: z.string(),
  State: z.string(),
  RunTime: z.number(),
  Failure: z
    .object({
      Message: z.string().nullish(),
      Location: z.object({ FileName: z.string().nullish(), LineNumber: z.number().nullish() }).nullish(),
    })
    .nullish(),
});

const suiteReports = z.array(
  z.object({ SpecReports: z.array(specReport).nullish(), SpecialSuiteFailureReasons: z.array(z.string()).nullish() }),
);

type SpecReport = z.infer<typeof specReport>;

/** Reads ginkgo's JSON report. Specs that a filter left out are no results, unless they are among the `omissions`. */
export function parseReport(json: string, omissions: readonly Omission[]): readonly SpecResult[] {
  return suiteReports.parse(JSON.parse(json)).flatMap((suite) => {
    const specs = (suite.SpecReports ?? []).flatMap((spec) => toResult(spec, omissions));
    // Without any failed spec such a reason would be lost: an interrupted run, a timeout.
    const reasons = suite.SpecialSuiteFailureReasons ?? [];
    if (reasons.length === 0 || specs.some(({ outcome }) => outcome.state === "failed")) return specs;
    return [...specs, { name: "the suite", durationMs: 0, outcome: { state: "failed" as const, message: reasons.join("; ") } }];
  });
}

function toResult(spec: SpecReport, omissions: readonly Omission[]): SpecResult[] {
  const name = [...(spec.ContainerHierarchyTexts ?? []), spec.LeafNodeText].join(" ").trim() || spec.LeafNodeType;
  const result = (outcome: Outcome): SpecResult[] => [{ name, durationMs: spec.RunTime / 1e6, outcome }];
  // Set-up of the whole suite is worth a line only when it failed.
  const isSpec = spec.LeafNodeType === "It";
  const message = spec.Failure?.Message ?? "";
  switch (spec.State) {
    case "passed":
      return isSpec ? result({ state: "passed" }) : [];
    case "skipped":
    case "pending": {
      const reason = message || omissions.find(({ namePart }) => name.includes(namePart))?.reason;
      return isSpec && reason !== undefined ? result({ state: "skipped", reason }) : [];
    }
    default: {
      const reason = isSpec ? hostNeed(message) : undefined;
      if (reason !== undefined) return result({ state: "not applicable", reason });
      const { FileName, LineNumber } = spec.Failure?.Location ?? {};
      const place = (FileName ?? "").split("/").slice(-1)[0];
      return result({ state: "failed", message: `${spec.State}: ${message} (${place}:${LineNumber ?? 0})` });
    }
  }
}

/**
 * What of the host a microVM was asked for, by our daemon's own words in a failure. Nothing else that it refuses is read here: what a microVM can
 * do, but is refused, is to fail.
 */
function hostNeed(message: string): string | undefined {
  const namespace = /allows no flat pod, but linux\.security_context\.namespace_options\.(\w+) is NODE: use runtimeClassName aurae-flat/;
  const [, name] = namespace.exec(message) ?? [];
  if (name !== undefined) return `needs the host's own namespaces: ${name}`;
  const mount = /config\.mounts\[\d+\]\.propagation: is (\w+), and mounts do not pass between the host and a microVM/;
  const [, propagation] = mount.exec(message) ?? [];
  return propagation === undefined ? undefined : `needs mounts shared with the host: ${propagation}`;
}

export function totalsOf(columns: readonly Column[]): Totals {
  const outcomes = columns.flatMap(({ results }) => results.map(({ outcome }) => outcome.state));
  const count = (state: Outcome["state"]) => outcomes.filter((outcome) => outcome === state).length;
  return { passed: count("passed"), failed: count("failed"), skipped: count("skipped"), notApplicable: count("not applicable") };
}

export function formatTotals({ passed, failed, skipped, notApplicable }: Totals): string {
  const usual = `${passed} passed, ${failed} failed, ${skipped} skipped`;
  return notApplicable === 0 ? usual : `${usual}, ${notApplicable} not applicable`;
}

/** A Markdown page: totals, a table of specs by columns with durations, then failures and reasons of skips in full. */
export function renderTable(columns: readonly Column[]): string {
  const names = [...new Set(columns.flatMap(({ results }) => results.map(({ name }) => name)))].sort();
  const rows = names.map((name) => [name, ...columns.map((column) => cell(find(column, name)))]);
  const totals = ["Total", ...columns.map((column) => formatTotals(totalsOf([column])))];
  const time = ["Time in specs", ...columns.map(({ results }) => seconds(results.reduce((sum, { durationMs }) => sum + durationMs, 0)))];
  return [
    "# critest 1.36.0",
    "",
    markdownRow(["Spec", ...columns.map(({ title }) => title)]),
    markdownRow(["---", ...columns.map(() => "---")]),
    ...[totals, time, ...rows].map(markdownRow),
    "",
    ...columns.flatMap((column) => details(column)),
  ].join("\n");
}

function details({ title, results }: Column): string[] {
  const lines = results.flatMap(({ name, outcome }) => {
    switch (outcome.state) {
      case "passed":
        return [];
      case "failed":
        return [`- failed: ${name}`, ...outcome.message.split("\n").map((line) => `      ${line}`)];
      case "skipped":
      case "not applicable":
        return [`- ${outcome.state}: ${name}: ${outcome.reason}`];
    }
  });
  return lines.length === 0 ? [] : [`## ${title}`, "", ...lines, ""];
}

function find({ results }: Column, name: string): SpecResult | undefined {
  return results.find((result) => result.name === name);
}

function cell(result: SpecResult | undefined): string {
  if (result === undefined) return "";
  const { outcome, durationMs } = result;
  switch (outcome.state) {
    case "passed":
      return seconds(durationMs);
    case "failed":
      return `**failed** ${seconds(durationMs)}`;
    case "skipped":
    case "not applicable":
      return `${outcome.state}: ${outcome.reason}`;
  }
}

function seconds(durationMs: number): string {
  return `${(durationMs / 1000).toFixed(1)} s`;
}

function markdownRow(cells: readonly string[]): string {
  return `| ${cells.map((text) => text.replaceAll("|", "\\|").replaceAll("\n", " ")).join(" | ")} |`;
}
