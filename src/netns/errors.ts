import { CodedError } from "../lib/coded-error.ts";

export type CniCommand = "ADD" | "DEL" | "CHECK" | "VERSION" | "STATUS" | "GC";

/** What can go wrong with a pod's network. Messages name the file, the plugin or the field, and the remedy where there is one. */
export type NetnsFact =
  | { readonly code: "ERR_CNI_NOT_READY"; readonly reason: string }
  | { readonly code: "ERR_CNI_CONFIG"; readonly file: string }
  /** The plugin answered with an error. `cniCode` is the code of the CNI spec, section "Error". */
  | { readonly code: "ERR_CNI_PLUGIN"; readonly plugin: string; readonly command: CniCommand; readonly cniCode: number }
  /** The plugin could not be run, or died, or ran too long, or answered with what is not CNI's. */
  | { readonly code: "ERR_CNI_EXEC"; readonly plugin: string; readonly command: CniCommand }
  | { readonly code: "ERR_CNI_PLUGIN_MISSING"; readonly plugin: string; readonly binDirs: readonly string[] }
  | { readonly code: "ERR_CNI_RESULT"; readonly problem: string }
  | { readonly code: "ERR_NETWORK_RECORD"; readonly file: string }
  | { readonly code: "ERR_NETWORK_REQUEST"; readonly field: string }
  | { readonly code: "ERR_NETWORK_ABORTED"; readonly podId: string }
  | { readonly code: "ERR_NETWORK_CLOSED" };

export class NetnsError extends CodedError<NetnsFact> {}

export function requestError(field: string, problem: string): NetnsError {
  return new NetnsError({ code: "ERR_NETWORK_REQUEST", field }, `${field} ${problem}`);
}

export function resultError(problem: string): NetnsError {
  return new NetnsError({ code: "ERR_CNI_RESULT", problem }, `CNI result: ${problem}`);
}
