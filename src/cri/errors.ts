import { CodedError } from "../lib/coded-error.ts";

/** A request that breaks the contract. `field` is its path in the message, as the proto spells it: `config.linux.sysctls`. */
export class InvalidArgumentError extends CodedError<{ readonly code: "ERR_INVALID_ARGUMENT"; readonly field: string }> {
  /** `problem` says what is wrong and what to send instead. */
  constructor(field: string, problem: string) {
    super({ code: "ERR_INVALID_ARGUMENT", field }, `${field}: ${problem}`);
  }
}

export type ServerFact =
  | { readonly code: "ERR_LISTEN"; readonly socketPath: string }
  | { readonly code: "ERR_SOCKET_IN_USE"; readonly socketPath: string };

export class ServerError extends CodedError<ServerFact> {}
