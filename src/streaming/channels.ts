import type { Outcome } from "./status.ts";

export interface WindowSize {
  readonly width: number;
  readonly height: number;
}

/** One client of an exec or attach, whatever the transport: SPDY streams or channels of a WebSocket. */
export interface Channels {
  /** Undefined when the client gave none. */
  readonly stdin: AsyncIterable<Buffer> | undefined;
  readonly sizes: AsyncIterable<WindowSize> | undefined;
  /** Aborts when the client has left. */
  readonly gone: AbortSignal;
  /** Resolves when the client keeps up. Rejects when it is gone. What the client did not ask for is dropped. */
  write(stream: "stdout" | "stderr", bytes: Buffer): Promise<void>;
  /** Ends the output, then tells the outcome, then closes. */
  finish(outcome: Outcome): Promise<void>;
}

/** A size line is short; what is longer is not one. */
const MAX_SIZE_TEXT = 1024;

/** Window sizes from a sequence of JSON objects `{"Width":80,"Height":24}`, cut anywhere. What is no such object is skipped. */
export async function* parseSizes(source: AsyncIterable<Buffer>): AsyncGenerator<WindowSize, void, void> {
  let text = "";
  for await (const chunk of source) {
    text += chunk.toString("latin1");
    for (let end = text.indexOf("}"); end >= 0; end = text.indexOf("}")) {
      const size = parseSize(text.slice(0, end + 1));
      text = text.slice(end + 1);
      if (size !== undefined) yield size;
    }
    if (text.length > MAX_SIZE_TEXT) text = "";
  }
}

function parseSize(text: string): WindowSize | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const fields = new Map(Object.entries(value).map(([name, field]) => [name.toLowerCase(), field as unknown]));
  const width = dimension(fields.get("width"));
  const height = dimension(fields.get("height"));
  return width === undefined || height === undefined ? undefined : { width, height };
}

function dimension(value: unknown): number | undefined {
  return typeof value === "number" && Number.isInteger(value) && value > 0 && value <= 0xffff ? value : undefined;
}
