/**
 * What the tree promises beyond types: which room may import which, who may spawn and read the environment, how large a file may be.
 * ARCHITECTURE.md tells the same in words. Pure: text in, broken rules out.
 */

export interface SourceFile {
  /** Relative to the checkout, with `/`. */
  readonly path: string;
  readonly text: string;
}

/** One broken rule, as a person should read it. */
export interface Violation {
  readonly path: string;
  readonly rule: string;
  readonly detail: string;
}

interface Import {
  readonly specifier: string;
  readonly typeOnly: boolean;
}

/** A room may import what stands lower. Rooms of one rank do not know each other. */
const rankOf: Readonly<Record<string, number>> = {
  cli: 6,
  streaming: 5,
  cri: 5,
  runtime: 4,
  image: 3,
  vm: 3,
  netns: 3,
  cdi: 3,
  agent: 3,
  store: 3,
  metrics: 3,
  host: 2,
  lib: 1,
};

const maxLines = { typescript: 400, rust: 600 };

/** Every rule a file of ours breaks. Generated code is nobody's style. */
export function violationsOf(file: SourceFile): Violation[] {
  if (file.path.startsWith("api/gen/")) return [];
  const found = [...sizeViolations(file)];
  if (!file.path.endsWith(".ts")) return found;
  const imports = importsOf(file.text);
  found.push(...nameViolations(file), ...formViolations(file), ...imports.flatMap((item) => arrowViolations(file, item)));
  if (file.path.startsWith("src/") && !isTest(file.path)) found.push(...reachViolations(file, imports));
  return found;
}

/** Static, dynamic and re-exporting imports. */
export function importsOf(text: string): Import[] {
  const found: Import[] = [];
  for (const match of text.matchAll(/^(?:import|export)\s+(type\s)?(?:[^'"`;]*?\sfrom\s+)?"([^"]+)"/gm)) {
    found.push({ specifier: match[2] ?? "", typeOnly: match[1] !== undefined });
  }
  for (const match of text.matchAll(/(?<![.\w])import\("([^"]+)"\)/g)) found.push({ specifier: match[1] ?? "", typeOnly: false });
  return found;
}

function isTest(path: string): boolean {
  return path.endsWith(".test.ts");
}

/** The room of a path under src/: its directory, or `root` for main, daemon and what stands beside them. */
function roomOf(path: string): string | undefined {
  const parts = path.split("/");
  if (parts[0] !== "src") return undefined;
  return parts.length > 2 ? parts[1] : "root";
}

function resolveFrom(path: string, specifier: string): string {
  const base = path.split("/").slice(0, -1);
  for (const part of specifier.split("/")) {
    if (part === "..") base.pop();
    else if (part !== ".") base.push(part);
  }
  return base.join("/");
}

function arrowViolations(file: SourceFile, item: Import): Violation[] {
  if (!item.specifier.startsWith(".")) return [];
  const target = resolveFrom(file.path, item.specifier);
  const broken = brokenArrow(file.path, target, item.typeOnly);
  return broken === undefined ? [] : [{ path: file.path, rule: "arrow", detail: `imports ${target}: ${broken}` }];
}

function brokenArrow(from: string, to: string, typeOnly: boolean): string | undefined {
  if (from.startsWith("src/")) return brokenArrowOfRoom(from, to, typeOnly);
  if (from.startsWith("e2e/") && to.startsWith("src/") && !["lib", "host"].includes(roomOf(to) ?? ""))
    return "e2e is black box: of src it knows lib and host";
  return undefined;
}

function brokenArrowOfRoom(from: string, to: string, typeOnly: boolean): string | undefined {
  if (to.startsWith("api/gen/")) return isTest(from) ? undefined : brokenContract(from, to, typeOnly);
  const room = roomOf(from) ?? "";
  const other = roomOf(to);
  if (other === undefined) return "the product knows nothing of its tests and tools";
  if (room === other || room === "root") return undefined;
  if (other === "root") return "only main.ts and daemon.ts put rooms together";
  if (other === "config") return "a room declares its own options; daemon.ts passes them in";
  if (room === "config") return other === "lib" || typeOnly ? undefined : "config knows the rooms by their option types alone";
  if (typeOnly && to === "src/runtime/ports.ts" && rankOf[room] === 3) return undefined;
  const [fromRank, toRank] = [rankOf[room], rankOf[other]];
  if (fromRank === undefined || toRank === undefined)
    return `unknown room '${fromRank === undefined ? room : other}': add it to tools/house-rules.ts`;
  if (fromRank === toRank) return "sideways; let the runtime own the interface";
  return fromRank > toRank ? undefined : "backwards";
}

/** The CRI's messages stop at the edge; auraed's are the language of the runtime and its client, and the edge encodes some of their shapes. */
function brokenContract(from: string, to: string, typeOnly: boolean): string | undefined {
  const ofAuraed = to.startsWith("api/gen/aurae/");
  const readers = ofAuraed ? ["agent", "runtime"] : ["cri", "streaming", "cli"];
  const room = roomOf(from) ?? "";
  if (ofAuraed && typeOnly && room === "cri") return undefined;
  return readers.includes(room) ? undefined : `that contract is spoken in ${readers.map((name) => `src/${name}`).join(" and ")} only`;
}

function reachViolations(file: SourceFile, imports: readonly Import[]): Violation[] {
  const room = roomOf(file.path);
  const found: Violation[] = [];
  if (room !== "host" && imports.some(({ specifier, typeOnly }) => !typeOnly && /^(node:)?child_process$/.test(specifier))) {
    found.push({ path: file.path, rule: "spawn", detail: "only src/host starts processes" });
  }
  if (room !== "config" && file.path !== "src/main.ts" && withoutComments(file.text).includes("process.env")) {
    found.push({ path: file.path, rule: "environment", detail: "process.env is read in src/config and src/main.ts only" });
  }
  return found;
}

function nameViolations(file: SourceFile): Violation[] {
  const name = file.path.split("/").at(-1) ?? "";
  if (name === "index.ts") return [{ path: file.path, rule: "barrel", detail: "no index.ts: import the file that has it" }];
  if (!/^[a-z0-9]+([.-][a-z0-9]+)*\.ts$/.test(name)) return [{ path: file.path, rule: "name", detail: "file names are kebab-case" }];
  return [];
}

const forms: readonly (readonly [pattern: RegExp, rule: string, detail: string])[] = [
  [/^\s*export\s+default\b/m, "default export", "exports have names"],
  [/^\s*(?:export\s+)?(?:declare\s+)?(?:const\s+)?enum\s/m, "enum", "use a union of literals"],
  [/^\s*export\s+\*/m, "barrel", "no re-export of a whole file"],
  [/\/\/.*\b(?:TODO|FIXME)\b(?!\(#\d+\))/m, "todo", "an open point names its issue, as in (#12)"],
];

function formViolations(file: SourceFile): Violation[] {
  return forms.filter(([pattern]) => pattern.test(file.text)).map(([, rule, detail]) => ({ path: file.path, rule, detail }));
}

function sizeViolations(file: SourceFile): Violation[] {
  if (file.path.endsWith(".ts") && !/\.(test|e2e)\.ts$/.test(file.path)) return tooLong(file, file.text, maxLines.typescript);
  if (file.path.endsWith(".rs") && !file.path.includes("/tests/"))
    return tooLong(file, file.text.split("#[cfg(test)]\nmod ")[0] ?? "", maxLines.rust);
  return [];
}

function tooLong(file: SourceFile, text: string, limit: number): Violation[] {
  const lines = text.trimEnd().split("\n").length;
  return lines <= limit ? [] : [{ path: file.path, rule: "size", detail: `${lines} lines; at most ${limit}: split it along a noun` }];
}

function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\/|(?<!:)\/\/.*$/gm, "");
}
