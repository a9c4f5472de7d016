/** Unix time in nanoseconds, to the microsecond that the platform gives. */
export function nowNs(): bigint {
  return BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
}
