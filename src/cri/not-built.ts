import { RuntimeError } from "../runtime/errors.ts";

/** An RPC of the contract that this release does not serve: it answers Unimplemented and says so. */
export function notBuilt(what: string): () => never {
  return () => {
    throw new RuntimeError(
      { code: "ERR_NOT_BUILT", what },
      `${what} is not built yet in this release of aurae-cri: docs/limits.md, "What is not there yet"`,
    );
  };
}
