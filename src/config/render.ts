import type { Config } from "./config.ts";
import type { TomlValue } from "./kinds.ts";
import { type SchemaRow, schemaRows } from "./schema.ts";

const pageWidth = 100;

/** A whole configuration file: every key with its default, commented with its meaning. */
export function renderDefault(): string {
  const head = comment("Configuration of aurae-cri. Every key may be left out; the values here are the defaults.");
  return `${head}\n\n${renderRows(({ key }) => key.fallback, true)}`;
}

/** The configuration in force, as a file that would make it so. */
export function renderConfig(config: Config): string {
  return renderRows(({ property: [name, inner] }) => {
    const value = config[name as keyof Config] as unknown;
    return inner === undefined ? value : (value as Record<string, unknown>)[inner];
  }, false);
}

function renderRows(valueOf: (row: SchemaRow) => unknown, withComments: boolean): string {
  const lines: string[] = [];
  let table: SchemaRow["table"];
  for (const row of schemaRows()) {
    if (row.table !== table) {
      table = row.table;
      lines.push("");
      if (withComments) lines.push(comment(row.table?.meaning ?? ""));
      lines.push(`[${row.table?.toml}]`);
    }
    if (withComments)
      lines.push(
        ...(table === row.table && lines.at(-1)?.startsWith("[") ? [] : [""]),
        comment(`${row.key.meaning} (${row.key.kind.name})`),
      );
    lines.push(`${row.key.toml} = ${tomlText(encode(row, valueOf(row)))}`);
  }
  return `${lines.join("\n").trimStart()}\n`;
}

export function encode(row: SchemaRow, value: unknown): TomlValue {
  // A row's value has the row's type, which `SchemaRow` has forgotten.
  return row.key.kind.encode(value as never);
}

/** TOML's basic strings escape as JSON does, and one character more. */
export function tomlText(value: TomlValue): string {
  return JSON.stringify(value, undefined, 0).replaceAll("\x7f", "\\u007f").replaceAll('","', '", "');
}

function comment(text: string): string {
  const lines: string[] = [];
  let line = "#";
  for (const word of text.split(" ")) {
    if (line.length + 1 + word.length > pageWidth) {
      lines.push(line);
      line = "#";
    }
    line += ` ${word}`;
  }
  return [...lines, line].join("\n");
}
