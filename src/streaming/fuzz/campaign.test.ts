import assert from "node:assert/strict";
import { it } from "node:test";

import { fuzz } from "./campaign.ts";

/** A taste with every run of the unit tests; `make fuzz` takes more. */
const seconds = Number(process.env["AURAE_CRI_FUZZ_SECONDS"] ?? 10);
/** Another one each time, so that runs add up; a finding names its own. */
const firstSeed = Number(process.env["AURAE_CRI_FUZZ_SEED"] ?? Date.now() % 1_000_000_000);

it("no client breaks the streaming server", { timeout: (seconds + 120) * 1000 }, async (t) => {
  const { cases, outcomes, peakBytes, residueBytes } = await fuzz({
    firstSeed,
    durationMs: seconds * 1000,
    onFinding: (finding) => t.diagnostic(finding.message),
  });
  const mib = (bytes: number) => `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
  t.diagnostic(
    `${cases} clients from seed ${firstSeed} in ${seconds} s: ${JSON.stringify(Object.fromEntries(outcomes))}, peak ${mib(peakBytes)}, residue ${mib(residueBytes)}`,
  );
  // The clients came far enough to be worth it.
  for (const outcome of ["success", "exit", "failure", "broken", "refused"]) assert.ok((outcomes.get(outcome) ?? 0) > 0, outcome);
});
