import { CodedError } from "../lib/coded-error.ts";

/** One thing that is wrong. `where` is `FILE:LINE:COLUMN`, or the flag. */
export interface Problem {
  readonly where: string;
  readonly message: string;
}

export type ConfigFact =
  /** At least one problem; all that were found. */
  | { readonly code: "ERR_CONFIG"; readonly problems: readonly Problem[] }
  | { readonly code: "ERR_CONFIG_FILE"; readonly path: string }
  | { readonly code: "ERR_USAGE" };

/** Its message has a line per problem. */
export class ConfigError extends CodedError<ConfigFact> {}

export function problemsError(problems: readonly Problem[]): ConfigError {
  const lines = problems.map(({ where, message }) => `${where}: ${message}`);
  return new ConfigError({ code: "ERR_CONFIG", problems }, lines.join("\n"));
}

export function usageError(message: string): ConfigError {
  return new ConfigError({ code: "ERR_USAGE" }, `${message}; 'aurae-cri --help' lists commands and flags`);
}
