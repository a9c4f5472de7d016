import assert from "node:assert/strict";
import { existsSync, globSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";

const root = join(import.meta.dirname, "..");

function read(path: string): string {
  return readFileSync(join(root, path), "utf8");
}

/** Rooms that the text does not name, and named ones that are neither there nor planned. */
function roomGaps(text: string, rooms: readonly string[]): string[] {
  const lines = text.split("\n").filter((line) => line.startsWith("| `src/"));
  const named = new Map(lines.map((line) => [/^\| `src\/([a-z]+)`/.exec(line)?.[1] ?? "", line.includes("*planned:*")]));
  named.delete("");
  const missing = rooms.filter((room) => !named.has(room)).map((room) => `src/${room} is not described`);
  const gone = [...named].filter(([room, planned]) => !planned && !rooms.includes(room)).map(([room]) => `src/${room} does not exist`);
  return [...missing, ...gone];
}

describe("documents", () => {
  it("link to files that exist", () => {
    const pages = [...globSync("*.md", { cwd: root }), ...globSync("docs/**/*.md", { cwd: root })];
    assert.ok(pages.length >= 7, `only ${pages.length} pages`);
    const broken = pages.flatMap((page) => {
      const targets = [...read(page).matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map((match) => match[1] ?? "");
      return targets.filter((target) => !existsSync(join(root, dirname(page), target))).map((target) => `${page}: ${target}`);
    });
    assert.deepEqual(broken, []);
  });

  it("describe every room", () => {
    // git does not keep empty directories, so neither does this count them.
    const rooms = readdirSync(join(root, "src"), { withFileTypes: true }).filter((entry) => entry.isDirectory());
    const filled = rooms.filter(({ name }) => readdirSync(join(root, "src", name)).length > 0).map(({ name }) => name);
    assert.deepEqual(roomGaps(read("ARCHITECTURE.md"), filled), []);
  });

  it("notice a room that is missing on either side", () => {
    const text = "| `src/lib` | helpers |\n| `src/vm` | *planned:* later |\n| `src/attic` | old |";
    assert.deepEqual(roomGaps(text, ["lib", "cri"]), ["src/cri is not described", "src/attic does not exist"]);
  });

  it("speak of make targets that exist", () => {
    const targets = new Set([...read("Makefile").matchAll(/^([a-z0-9-]+):/gm)].map((match) => match[1]));
    for (const page of ["README.md", "CONTRIBUTING.md", ".ci/run"]) {
      const spoken = [...read(page).matchAll(/^(?:\S*`)?make ([a-z0-9-]+)|`make ([a-z0-9-]+)/gm)].map((match) => match[1] ?? match[2]);
      assert.deepEqual(
        spoken.filter((target) => !targets.has(target)),
        [],
        page,
      );
    }
  });

  it("number decisions once, with a title and a status", () => {
    const files = readdirSync(join(root, "docs/adr")).sort();
    const numbers = files.map((file) => /^(\d{4})-[a-z0-9-]+\.md$/.exec(file)?.[1]);
    assert.ok(!numbers.includes(undefined), `not NNNN-title.md: ${files.join(", ")}`);
    assert.equal(new Set(numbers).size, numbers.length, `a number is used twice: ${files.join(", ")}`);
    for (const file of files)
      assert.match(read(`docs/adr/${file}`), new RegExp(`^# ${file.slice(0, 4)}: .+\n\nStatus: (accepted|superseded by \\d{4})\n`), file);
  });

  it("keep the changelog's form", () => {
    const text = read("CHANGELOG.md");
    const releases = [...text.matchAll(/^## (.*)$/gm)].map((match) => match[1] ?? "");
    assert.equal(releases[0], "[Unreleased]");
    for (const release of releases.slice(1)) assert.match(release, /^\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}$/);
    const sections = [...text.matchAll(/^### (.*)$/gm)].map((match) => match[1] ?? "");
    for (const section of sections)
      assert.ok(["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"].includes(section), section);
  });
});
