/** The only environment variables the program looks at. Configuration proper is in the file. */
export interface Environment {
  /** `AURAE_CRI_FAILPOINTS`: see `src/lib/failpoint.ts`. "" in production. */
  readonly failpoints: string;
  /** Whether a service manager waits for readiness (`NOTIFY_SOCKET`). */
  readonly notifySocket: string | undefined;
}

export function readEnvironment(variables: Readonly<Record<string, string | undefined>>): Environment {
  const notifySocket = variables["NOTIFY_SOCKET"];
  return { failpoints: variables["AURAE_CRI_FAILPOINTS"] ?? "", notifySocket: notifySocket === "" ? undefined : notifySocket };
}
