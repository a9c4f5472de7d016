import { createLogger, format, type Logger, transports } from "winston";
import { CodedError } from "./coded-error.ts";
import type { Log, LogFields } from "./log.ts";

export type LogLevel = "error" | "warn" | "info" | "debug";
export type LogFormat = "json" | "console";

export interface LogOptions {
  readonly level: LogLevel;
  /** `json`: one object per line, for collectors. `console`: for a person. */
  readonly format: LogFormat;
  /** Where lines go; the process's stderr unless given. It is not closed. */
  readonly stream?: NodeJS.WritableStream;
}

/** A log that holds a stream: disposing of it waits until every line is written. */
export interface OpenLog extends Log, AsyncDisposable {}

/** Fields `time`, `level`, `message` and `error` are the log's own: one of that name in `fields` is dropped. */
export function createLog(options: LogOptions): OpenLog {
  const print = options.format === "json" ? jsonLine : consoleLine;
  const logger = createLogger({
    level: options.level,
    levels: { error: 0, warn: 1, info: 2, debug: 3 },
    format: format((info) => Object.assign(info, { [Symbol.for("message")]: print(info) }))(),
    transports: [new transports.Stream({ stream: options.stream ?? process.stderr })],
  });
  const log = bind(logger, options.level === "debug", {});
  return {
    ...log,
    async [Symbol.asyncDispose]() {
      const finished = Promise.withResolvers<void>();
      logger.once("finish", finished.resolve);
      logger.end();
      await finished.promise;
    },
  };
}

function bind(logger: Logger, withStack: boolean, bound: LogFields): Log {
  const write = (level: LogLevel, message: string, fields: LogFields | undefined, error?: unknown): void => {
    if (!logger.isLevelEnabled(level)) return;
    logger.log({ ...bound, ...fields, ...describe(error, withStack), time: new Date().toISOString(), level, message });
  };
  return {
    error: (message, fields, error) => write("error", message, fields, error),
    warn: (message, fields, error) => write("warn", message, fields, error),
    info: (message, fields) => write("info", message, fields),
    debug: (message, fields) => write("debug", message, fields),
    child: (fields) => bind(logger, withStack, { ...bound, ...fields }),
  };
}

/** `error` is the chain of messages, outermost first; `stack` comes at level debug only. */
function describe(error: unknown, withStack: boolean): LogFields {
  if (error === undefined) return { error: undefined };
  const code = error instanceof CodedError ? { code: error.fact.code } : {};
  const stack = withStack && error instanceof Error ? { stack: error.stack } : {};
  return { ...code, ...stack, error: chain(error).join(": ") };
}

function chain(error: unknown): string[] {
  const messages: string[] = [];
  let link = error;
  // Bounded: a cause can be a cycle.
  for (let depth = 0; depth < 10 && link !== undefined && link !== null; depth++) {
    const message = oneLink(link);
    // Wrappers often repeat the message they wrap.
    if (!messages.some((earlier) => earlier.includes(message))) messages.push(message);
    link = link instanceof Error ? link.cause : undefined;
  }
  return messages;
}

function oneLink(link: unknown): string {
  if (link instanceof AggregateError) {
    const inner = link.errors.map((each) => chain(each).join(": ")).join("; ");
    return link.message === "" ? inner : `${link.message} (${inner})`;
  }
  return link instanceof Error ? link.message || link.name : String(link);
}

type Line = Record<string, unknown>;

function jsonLine({ time, level, message, error, ...fields }: Line): string {
  return JSON.stringify({ time, level, message, ...fields, error }, (_, value: unknown) =>
    typeof value === "bigint" ? String(value) : value,
  );
}

function consoleLine({ time, level, message, error, stack, ...fields }: Line): string {
  const facts = Object.entries({ ...fields, error })
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${name}=${quoted(String(value))}`);
  const head = [time, String(level).padEnd(5), message].join(" ");
  return `${head}${facts.join("")}${typeof stack === "string" ? `\n${stack}` : ""}`;
}

function quoted(text: string): string {
  return /^[\w./:@+,-]+$/.test(text) ? text : JSON.stringify(text);
}
