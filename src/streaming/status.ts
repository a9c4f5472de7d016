/** How a session of a process ended. */
export type Outcome =
  | { readonly kind: "success" }
  | { readonly kind: "exit"; readonly code: number }
  /** The process could not be run or watched. */
  | { readonly kind: "failure"; readonly message: string };

/** v4 and later: a Kubernetes `Status` document, whatever the outcome. */
export function statusDocument(outcome: Outcome): string {
  const base = { metadata: {} };
  switch (outcome.kind) {
    case "success":
      return JSON.stringify({ ...base, status: "Success" });
    case "exit":
      return outcome.code === 0
        ? JSON.stringify({ ...base, status: "Success" })
        : JSON.stringify({
            ...base,
            status: "Failure",
            message: exitText(outcome.code),
            reason: "NonZeroExitCode",
            details: { causes: [{ reason: "ExitCode", message: String(outcome.code) }] },
          });
    case "failure":
      return JSON.stringify({ ...base, status: "Failure", message: outcome.message, reason: "InternalError", code: 500 });
  }
}

/** Before v4: words, only when something went wrong. */
export function statusText(outcome: Outcome): string {
  if (outcome.kind === "failure") return outcome.message;
  return outcome.kind === "exit" && outcome.code !== 0 ? exitText(outcome.code) : "";
}

function exitText(code: number): string {
  return `command terminated with non-zero exit code: ${code}`;
}
