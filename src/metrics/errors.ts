import { CodedError } from "../lib/coded-error.ts";

export class MetricsError extends CodedError<{ readonly code: "ERR_LISTEN"; readonly address: string; readonly port: number }> {}
