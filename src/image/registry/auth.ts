import type { PullCredentials } from "../../runtime/ports.ts";
import type { Endpoint } from "./hosts.ts";

/** One `WWW-Authenticate` challenge; parameter names are lower case. */
export interface Challenge {
  readonly scheme: "basic" | "bearer";
  readonly params: ReadonlyMap<string, string>;
}

/** What a pull may prove itself with at one registry. */
export type Secret =
  | { readonly kind: "none" }
  | { readonly kind: "password"; readonly username: string; readonly password: string }
  /** An OAuth refresh token. */
  | { readonly kind: "identity"; readonly username: string; readonly token: string }
  /** A bearer token, used as it is. */
  | { readonly kind: "registry"; readonly token: string };

/** The challenges of a header that may hold several; unknown schemes are left out. */
export function parseChallenges(header: string): readonly Challenge[] {
  const challenges: Challenge[] = [];
  const token = /\s*,?\s*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?/y;
  let params: Map<string, string> | undefined;
  for (let match = token.exec(header); match !== null; match = token.exec(header)) {
    const [, name = "", quoted, bare] = match;
    const value = quoted?.replace(/\\(.)/g, "$1") ?? bare;
    if (value !== undefined) {
      params?.set(name.toLowerCase(), value);
      continue;
    }
    params = new Map();
    const scheme = name.toLowerCase();
    if (scheme === "basic" || scheme === "bearer") challenges.push({ scheme, params });
  }
  return challenges;
}

/**
 * The secret for an endpoint. Credentials belong to the registry that the reference names, or to the host in `serverAddress` when that
 * is given; nobody else, a mirror included, gets to see them.
 */
export function secretFor(endpoint: Endpoint, domain: string, credentials: PullCredentials | undefined): Secret {
  if (credentials === undefined || !isMeantFor(endpoint, domain, credentials.serverAddress)) return { kind: "none" };
  const { username, password, auth, identityToken, registryToken } = credentials;
  if (identityToken !== "") return { kind: "identity", username, token: identityToken };
  if (registryToken !== "") return { kind: "registry", token: registryToken };
  if (username !== "" || password !== "") return { kind: "password", username, password };
  const decoded = Buffer.from(auth, "base64").toString("utf8");
  const colon = decoded.indexOf(":");
  if (colon === -1) return { kind: "none" };
  return { kind: "password", username: decoded.slice(0, colon), password: decoded.slice(colon + 1).replace(/\0+$/, "") };
}

function isMeantFor(endpoint: Endpoint, domain: string, serverAddress: string): boolean {
  if (serverAddress === "") return endpoint.origin;
  const host = serverAddress
    .replace(/^[a-z]+:\/\//i, "")
    .replace(/\/.*$/, "")
    .toLowerCase();
  if (host === endpoint.host.toLowerCase()) return true;
  // Docker Hub goes by three names.
  const named = host === "index.docker.io" || host === "registry-1.docker.io" ? "docker.io" : host;
  return endpoint.origin && named === domain.toLowerCase();
}

export function basicHeader(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`, "utf8").toString("base64")}`;
}
