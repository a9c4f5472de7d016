/**
 * The base of every room's error: a union keyed by `code`, each code carrying its own facts.
 *
 *     type NetnsFact = { code: "ERR_CNI_PLUGIN"; plugin: string } | { code: "ERR_NO_CONFIG"; confDir: string };
 *     export class NetnsError extends CodedError<NetnsFact> {}
 *
 * The message is for an operator: it names the thing, what was wrong and, where there is one, the remedy.
 */
export class CodedError<Fact extends { readonly code: string }> extends Error {
  readonly fact: Fact;

  constructor(fact: Fact, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.fact = fact;
  }
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Makes a switch over a closed union fail to compile when a case is missing. */
export function unreachable(value: never): never {
  throw new Error(`unreachable: ${JSON.stringify(value)}`);
}
