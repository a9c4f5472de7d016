/** What was seen of one pod of the demo. */
export interface Seen {
  readonly mode: string;
  /** Rows of the table, in order: what, and what it was for this pod. */
  readonly facts: Readonly<Record<string, string>>;
}

/** The same pod in each mode, side by side. */
export function sideBySide(pods: readonly Seen[]): string {
  const names = [...new Set(pods.flatMap(({ facts }) => Object.keys(facts)))];
  const rows = [["", ...pods.map(({ mode }) => mode)], ...names.map((name) => [name, ...pods.map(({ facts }) => facts[name] ?? "-")])];
  const widths = pods.reduce(
    (sizes, _pod, index) => [...sizes, Math.max(...rows.map((row) => row[index + 1]?.length ?? 0))],
    [Math.max(...names.map((name) => name.length))],
  );
  const line = (row: readonly string[]) => `   ${row.map((cell, index) => cell.padEnd(widths[index] ?? 0)).join("  │ ")}`.trimEnd();
  const rule = `   ${widths.map((width) => "─".repeat(width)).join("──┼─")}`;
  const [header = [], ...body] = rows;
  return [line(header), rule, ...body.map(line)].join("\n");
}
