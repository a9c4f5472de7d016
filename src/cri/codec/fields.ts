import { InvalidArgumentError } from "../errors.ts";

/** A field that must not be empty. */
export function requireId(value: string | undefined, field: string): string {
  if (value === undefined || value === "") throw new InvalidArgumentError(field, "must not be empty");
  return value;
}

/** CRI's whole seconds; 0 keeps its meaning. */
export function secondsToMs(seconds: bigint, field: string): number {
  if (seconds < 0n) throw new InvalidArgumentError(field, `must not be negative, is ${seconds}`);
  return Number(seconds) * 1000;
}
