import { defaultConfigPath } from "./load.ts";
import { encode, tomlText } from "./render.ts";
import { type SchemaRow, schemaRows } from "./schema.ts";

/** The page `docs/configuration.md`, made from the schema. */
export function renderReference(): string {
  const parts = [head];
  let table: SchemaRow["table"];
  parts.push(tableHead);
  for (const row of schemaRows()) {
    if (row.table !== table) {
      table = row.table;
      parts.push(`\n## \`[${row.table?.toml}]\`\n\n${row.table?.meaning}\n`, tableHead);
    }
    const { key } = row;
    parts.push(`| \`${row.path}\` | ${cell(key.kind.name)} | \`${cell(tomlText(encode(row, key.fallback)))}\` | ${cell(key.meaning)} |`);
  }
  return `${parts.join("\n")}\n`;
}

const tableHead = "| key | type | default | meaning |\n|---|---|---|---|";

const head = `# Configuration

<!-- Made by tools/config-reference.ts from src/config/schema.ts. -->

One TOML file, named by \`--config\`; without the flag \`${defaultConfigPath}\` when it exists. Every key may be left out. A key that is not
listed here, a value of the wrong type and settings that contradict each other are errors, reported all at once with file and line; the
daemon does not start then. \`--root\`, \`--state\` and \`--listen\` override the keys of those names.

- \`aurae-cri config default\` prints a file with every key, its default and its meaning.
- \`aurae-cri config show\` prints the configuration that the daemon would run with.
- \`aurae-cri config validate FILE\` checks a file and prints nothing when it is sound.
`;

function cell(text: string): string {
  return text.replaceAll("|", "\\|");
}
