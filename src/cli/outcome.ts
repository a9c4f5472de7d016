/** What a command has to say, for `main.ts` to print; commands themselves print nothing. */
export interface Outcome {
  /** 0: answered. 1: not, or something failed. */
  readonly exitCode: 0 | 1;
  readonly stdout: string;
  readonly stderr: string;
}

export function answered(stdout: string): Outcome {
  return { exitCode: 0, stdout, stderr: "" };
}

export function failed(message: string): Outcome {
  return { exitCode: 1, stdout: "", stderr: `aurae-cri: ${message}\n` };
}

/** Text of others on its way to a terminal: what would move the cursor is shown as an escape instead. */
export function printable(text: string): string {
  return Array.from(text, (char) => (isControl(char) ? escapeOf(char) : char)).join("");
}

function isControl(char: string): boolean {
  const code = char.codePointAt(0) ?? 0;
  return code < 0x20 || (code >= 0x7f && code < 0xa0);
}

function escapeOf(char: string): string {
  return `\\u${(char.codePointAt(0) ?? 0).toString(16).padStart(4, "0")}`;
}
