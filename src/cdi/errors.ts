import { CodedError } from "../lib/coded-error.ts";

/** Why a CDI device cannot be given to a container. Messages name the device, the file and the remedy. */
export type CdiFact =
  /** No specification has the device. */
  | { readonly code: "ERR_CDI_UNKNOWN_DEVICE"; readonly device: string }
  /** Two specifications of the same rank have it. */
  | { readonly code: "ERR_CDI_CONFLICT"; readonly device: string; readonly files: readonly string[] }
  /** What its specification asks for is not there, or not possible here. */
  | { readonly code: "ERR_CDI_EDIT"; readonly device: string; readonly file: string };

export class CdiError extends CodedError<CdiFact> {}
