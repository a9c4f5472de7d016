/** One measured operation. */
export interface Sample {
  readonly wallMs: number;
  /** CPU time of everything that worked for it, on all CPUs. */
  readonly cpuMs: number;
}

export interface Summary {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly meanCpuMs: number;
}

export interface Comparison {
  readonly subject: Summary;
  readonly peer: Summary;
  /** Median of the ratios of samples taken one after the other: noise that lasts longer than a pair cancels out. */
  readonly pairedRatio: number;
  readonly cpuRatio: number;
}

export function compareSamples(pairs: readonly { readonly subject: Sample; readonly peer: Sample }[]): Comparison {
  const subject = summarize(pairs.map((pair) => pair.subject));
  const peer = summarize(pairs.map((pair) => pair.peer));
  const pairedRatio = percentile(
    pairs.map((pair) => pair.subject.wallMs / pair.peer.wallMs),
    50,
  );
  return { subject, peer, pairedRatio, cpuRatio: subject.meanCpuMs / peer.meanCpuMs };
}

export function summarize(samples: readonly Sample[]): Summary {
  const wall = samples.map((sample) => sample.wallMs);
  return {
    count: samples.length,
    p50Ms: percentile(wall, 50),
    p99Ms: percentile(wall, 99),
    meanCpuMs: samples.reduce((total, sample) => total + sample.cpuMs, 0) / samples.length,
  };
}

/** The smallest value that at least `rank` per cent of the values do not exceed. */
export function percentile(values: readonly number[], rank: number): number {
  const sorted = values.toSorted((left, right) => left - right);
  const value = sorted[Math.max(0, Math.ceil((rank / 100) * sorted.length) - 1)];
  if (value === undefined) throw new Error("no values to take a percentile of");
  return value;
}
