import { untilAborted } from "../lib/abort.ts";
import { RuntimeError } from "./errors.ts";

type Claim =
  | { readonly phase: "in-flight"; readonly fingerprint: string; readonly attempt: Promise<string> }
  | { readonly phase: "held"; readonly fingerprint: string; readonly id: string; readonly delivered: boolean };

/**
 * Reserves the names of pods and containers. An identical call that arrives while the first is under way joins it; one that arrives after
 * the first succeeded without its client (deadline passed, connection lost, daemon killed) gets the parked result. Only a name whose
 * result somebody received is "in use".
 */
export class Names {
  readonly #claims = new Map<string, Claim>();

  /**
   * Runs `attempt` under `name`, or joins or takes over what an identical call (same `fingerprint`) began. The attempt goes on when `signal`
   * aborts: only this caller stops waiting.
   */
  async claim(
    name: string,
    fingerprint: string,
    attempt: () => Promise<string>,
    options: { readonly signal: AbortSignal },
  ): Promise<string> {
    const claim = this.#claims.get(name);
    if (claim !== undefined && claim.fingerprint !== fingerprint) throw inUse(name, claim);
    if (claim?.phase === "held") {
      if (claim.delivered) throw inUse(name, claim);
      this.#claims.set(name, { ...claim, delivered: true });
      return claim.id;
    }
    const id = await untilAborted(claim?.attempt ?? this.#begin(name, fingerprint, attempt), options.signal);
    // Not when the name was released, or taken anew, in the meantime.
    const now = this.#claims.get(name);
    if (now?.phase === "held" && now.id === id) this.#claims.set(name, { ...now, delivered: true });
    return id;
  }

  /** Takes a name that a record of an earlier daemon holds. `claimable`: the identical call may have it, once. */
  hold(name: string, fingerprint: string, { id, claimable }: { readonly id: string; readonly claimable: boolean }): void {
    this.#claims.set(name, { phase: "held", fingerprint, id, delivered: !claimable });
  }

  /** Frees the name when `id` holds it. One that failed to start does not, and a retry may: removing the first must not free the second's. */
  release(name: string, id: string): void {
    const claim = this.#claims.get(name);
    if (claim?.phase === "held" && claim.id === id) this.#claims.delete(name);
  }

  #begin(name: string, fingerprint: string, attempt: () => Promise<string>): Promise<string> {
    const running = attempt().then(
      (id) => {
        this.#claims.set(name, { phase: "held", fingerprint, id, delivered: false });
        return id;
      },
      (error: unknown) => {
        this.#claims.delete(name);
        throw error;
      },
    );
    // The attempt may outlive every caller that waits for it.
    running.catch(() => {});
    this.#claims.set(name, { phase: "in-flight", fingerprint, attempt: running });
    return running;
  }
}

function inUse(name: string, claim: Claim): RuntimeError {
  const id = claim.phase === "held" ? claim.id : "";
  const by = claim.phase === "held" ? `by ${id}` : "by an attempt under way with another configuration";
  return new RuntimeError(
    { code: "ERR_NAME_IN_USE", name, id },
    `the name '${name}' is in use ${by}: remove that first or use another attempt number`,
  );
}
