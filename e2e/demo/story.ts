import { stripVTControlCharacters } from "node:util";

interface Phase {
  readonly name: string;
  readonly wallMs: number;
}

/** Tells what happens while it happens, and how long each part took. */
export class Story {
  readonly #phases: Phase[] = [];

  async phase<T>(name: string, work: () => Promise<T>): Promise<T> {
    console.log(`\n== ${name}`);
    const begunMs = performance.now();
    const result = await work();
    const wallMs = performance.now() - begunMs;
    this.#phases.push({ name, wallMs });
    console.log(`   ${formatMs(wallMs)}`);
    return result;
  }

  tell(text: string): void {
    console.log(`\n${text}`);
  }

  /** What a program printed, set in, without what is meant to clear a screen. */
  show(output: string): void {
    console.log(stripVTControlCharacters(output).replaceAll(/^/gm, "   | "));
  }

  timeTable(): string {
    const total = this.#phases.reduce((sum, phase) => sum + phase.wallMs, 0);
    const rows = [...this.#phases, { name: "all of it", wallMs: total }];
    const width = Math.max(...rows.map((row) => row.name.length));
    return `\n${rows.map((row) => `  ${row.name.padEnd(width)}  ${formatMs(row.wallMs).padStart(9)}`).join("\n")}\n`;
  }
}

function formatMs(wallMs: number): string {
  return wallMs < 1000 ? `${wallMs.toFixed(0)} ms` : `${(wallMs / 1000).toFixed(1)} s`;
}
