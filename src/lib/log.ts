/** Flat facts of one log line. Secrets never go in. */
export type LogFields = Readonly<Record<string, string | number | boolean | bigint | null | undefined>>;

/**
 * Constant message, flat fields, error last. Levels: `error` needs a person; `warn` is a loss that was contained; `info` is one
 * line per CRI call and per change an operator would look for; `debug` is for developers.
 */
export interface Log {
  error(message: string, fields?: LogFields, error?: unknown): void;
  warn(message: string, fields?: LogFields, error?: unknown): void;
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
  /** A log that adds `fields` to each line. One child per room, built once. */
  child(fields: LogFields): Log;
}

/** Drops everything; for tests and one-shot commands. */
export const silentLog: Log = {
  error() {},
  warn() {},
  info() {},
  debug() {},
  child: () => silentLog,
};
