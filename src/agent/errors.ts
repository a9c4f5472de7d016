import { CodedError } from "../lib/coded-error.ts";

/** What can go wrong between the daemon and an auraed. `status` is the gRPC code that auraed answered with. */
export type AgentFact =
  | { readonly code: "ERR_AGENT_UNREACHABLE"; readonly method: string }
  | { readonly code: "ERR_AGENT_ABORTED"; readonly method: string }
  | { readonly code: "ERR_AGENT_VERSION"; readonly contractVersion: number }
  | { readonly code: "ERR_AGENT_REFUSED"; readonly method: string; readonly status: number };

export class AgentError extends CodedError<AgentFact> {}
