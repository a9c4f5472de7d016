import { CodedError } from "../lib/coded-error.ts";

/** What can go wrong between the daemon and the machine it runs on. `file` is the program that was to run. */
export type HostFact =
  | { readonly code: "ERR_PROCESS_NOT_FOUND"; readonly file: string }
  | { readonly code: "ERR_PROCESS_SPAWN"; readonly file: string; readonly errno: string }
  | { readonly code: "ERR_PROCESS_TIMEOUT"; readonly file: string; readonly timeoutMs: number }
  | { readonly code: "ERR_PROCESS_ABORTED"; readonly file: string }
  | { readonly code: "ERR_PROCESS_OUTPUT"; readonly file: string; readonly maxOutputBytes: number }
  | { readonly code: "ERR_PROCESS_NOT_READY"; readonly file: string; readonly logTail: string }
  | { readonly code: "ERR_DIAL"; readonly port: number }
  | { readonly code: "ERR_AURAED_HOST"; readonly operation: string }
  | {
      readonly code: "ERR_SERVICE_NOTIFY";
      readonly state: string;
      readonly exitCode: number | undefined;
      readonly signal: NodeJS.Signals | undefined;
    }
  | { readonly code: "ERR_CGROUP_DRIVER"; readonly driver: string }
  | { readonly code: "ERR_CGROUP_PARENT"; readonly parent: string }
  | { readonly code: "ERR_CGROUP_NONE" };

export class HostError extends CodedError<HostFact> {}
