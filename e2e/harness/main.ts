/**
 * Runs a program's main function; a failure is told with everything that it hides, and becomes exit code 1. A first Ctrl-C ends the programs that it
 * started, which fails the step under way, and so leads to the usual cleaning up; a second one ends it at once.
 */
export async function runMain(main: () => Promise<void>): Promise<void> {
  process.once("SIGINT", () => console.error("\ninterrupted: cleaning up"));
  try {
    await main();
  } catch (error) {
    console.error(`\n${describeError(error)}`);
    process.exitCode = 1;
  }
}

/** An error, what it suppressed while resources were released, and what caused it. */
function describeError(error: unknown): string {
  if (error instanceof SuppressedError) return `${describeError(error.suppressed)}\nand while cleaning up: ${describeError(error.error)}`;
  if (!(error instanceof Error)) return String(error);
  const text = error.stack ?? error.message;
  return error.cause === undefined ? text : `${text}\ncaused by: ${describeError(error.cause)}`;
}
