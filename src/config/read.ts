import { type AST, ParseError, parseTOML } from "toml-eslint-parser";
import type { Problem } from "./errors.ts";
import type { TomlValue } from "./kinds.ts";

/** One `key = value` as it was written, before anything is known about keys. */
export interface RawEntry {
  /** Dotted and whole: `cni.conf_dir`. */
  readonly path: string;
  /** Undefined for a value that no key of ours can have. */
  readonly value: TomlValue | undefined;
  /** `FILE:LINE:COLUMN` of the key, or the flag that gave it. */
  readonly where: string;
  readonly whereValue: string;
}

/** A table as it was opened: known even when nothing is in it. */
export interface RawTable {
  readonly path: string;
  readonly where: string;
}

export interface RawConfig {
  readonly entries: readonly RawEntry[];
  readonly tables: readonly RawTable[];
  readonly problems: readonly Problem[];
}

/** Reads TOML text into entries; no policy. A syntax error is the file's only problem. `file` is for locations. */
export function readToml(text: string, file: string): RawConfig {
  const raw = { entries: [] as RawEntry[], tables: [] as RawTable[], problems: [] as Problem[], file };
  try {
    const [top] = parseTOML(text).body;
    for (const node of top.body) {
      if (node.type === "TOMLTable") readTable(node, raw);
      else readEntry(node, [], raw);
    }
    return raw;
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
    const where = `${file}:${error.lineNumber}:${error.column + 1}`;
    return { entries: [], tables: [], problems: [{ where, message: `not TOML: ${error.message}` }] };
  }
}

interface Reading {
  readonly file: string;
  readonly entries: RawEntry[];
  readonly tables: RawTable[];
  readonly problems: Problem[];
}

function readTable(node: AST.TOMLTable, into: Reading): void {
  const path = names(node.key);
  if (node.kind === "array") {
    into.problems.push({ where: place(node.key, into), message: `[[${path.join(".")}]] is a list of tables, which no key takes` });
    return;
  }
  into.tables.push({ path: path.join("."), where: place(node.key, into) });
  for (const entry of node.body) readEntry(entry, path, into);
}

function readEntry(node: AST.TOMLKeyValue, prefix: readonly string[], into: Reading): void {
  const path = [...prefix, ...names(node.key)];
  if (node.value.type === "TOMLInlineTable") {
    into.tables.push({ path: path.join("."), where: place(node.key, into) });
    for (const entry of node.value.body) readEntry(entry, path, into);
    return;
  }
  into.entries.push({
    path: path.join("."),
    value: valueOf(node.value),
    where: place(node.key, into),
    whereValue: place(node.value, into),
  });
}

function valueOf(node: AST.TOMLContentNode): TomlValue | undefined {
  if (node.type === "TOMLArray") {
    const items = node.elements.map(valueOf);
    return items.every((item) => typeof item === "string") ? items : undefined;
  }
  if (node.type === "TOMLInlineTable") return undefined;
  return node.kind === "string" || node.kind === "integer" || node.kind === "boolean" ? node.value : undefined;
}

function names(key: AST.TOMLKey): string[] {
  return key.keys.map((part) => (part.type === "TOMLBare" ? part.name : part.value));
}

function place(node: AST.TOMLNode, { file }: Reading): string {
  return `${file}:${node.loc.start.line}:${node.loc.start.column + 1}`;
}
