import leven from "leven";

/** The candidate that `wrong` was probably meant to be, if any is close enough. */
export function nearest(wrong: string, candidates: readonly string[]): string | undefined {
  const asked = plain(wrong);
  const [best] = candidates
    .map((candidate) => ({ candidate, away: distance(asked, plain(candidate)) }))
    .filter(({ candidate, away }) => away <= tolerance(candidate))
    .sort((a, b) => a.away - b.away);
  return best?.candidate;
}

/** ` (did you mean 'x'?)`, or nothing. */
export function didYouMean(wrong: string, candidates: readonly string[]): string {
  const candidate = nearest(wrong, candidates);
  return candidate === undefined ? "" : ` (did you mean '${candidate}'?)`;
}

/** The end of a dotted key counts too: the right key is often written in the wrong table. */
function distance(asked: string, candidate: string): number {
  const [ownName, theirName] = [asked, candidate].map((path) => path.slice(path.lastIndexOf(".") + 1));
  const whole = leven(asked, candidate);
  return ownName === theirName && asked !== candidate ? Math.min(whole, 1) : whole;
}

/** Two letters swapped are a distance of 2; the whole name replaced is no slip. */
function tolerance(candidate: string): number {
  return Math.min(candidate.length - 1, Math.max(2, Math.floor(candidate.length / 3)));
}

function plain(name: string): string {
  return name.toLowerCase().replaceAll(/[-_]/g, "");
}
