import type { AuthConfig } from "../../../api/gen/cri/v1/api.ts";
import type { PullCredentials } from "../../runtime/ports.ts";

/** Undefined when the client sent nothing that could be a credential. */
export function decodeCredentials(auth: AuthConfig | undefined): PullCredentials | undefined {
  if (auth === undefined) return undefined;
  const { username, password, identityToken, registryToken, serverAddress } = auth;
  if ([username, password, auth.auth, identityToken, registryToken].every((part) => part === "")) return undefined;
  return { username, password, auth: auth.auth, serverAddress, identityToken, registryToken };
}
