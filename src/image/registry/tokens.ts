import { createHash } from "node:crypto";
import { z } from "zod";
import { ImageError } from "../errors.ts";
import { basicHeader, type Challenge, type Secret } from "./auth.ts";
import { type Endpoint, isLoopback } from "./hosts.ts";
import { type HttpResponse, readBody, type Transport } from "./transport.ts";

const MAX_TOKEN_BYTES = 1 << 20;
const MAX_CACHED = 512;
/** What a token server means when it does not say. */
const DEFAULT_LIFE_S = 60;
/** A token this close to its end is not used any more. */
const MARGIN_MS = 10_000;

const tokenSchema = z.object({ token: z.string().optional(), access_token: z.string().optional(), expires_in: z.number().optional() });

export interface TokenRequest {
  readonly endpoint: Endpoint;
  readonly secret: Secret;
  /** `repository:PATH:pull` */
  readonly scope: string;
  readonly signal: AbortSignal;
}

/**
 * `Authorization` headers by (credentials, registry, scope). The credentials are part of the key: what one pod may fetch is never
 * fetched with what was given for another.
 */
export class Tokens {
  readonly #transport: Transport;
  readonly #headers = new Map<string, { readonly header: string; readonly expiresMs: number }>();

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** What to send before the registry has asked. */
  known(request: TokenRequest): string | undefined {
    if (request.secret.kind === "registry") return `Bearer ${request.secret.token}`;
    const cached = this.#headers.get(keyOf(request));
    return cached !== undefined && cached.expiresMs > Date.now() ? cached.header : undefined;
  }

  forget(request: TokenRequest): void {
    this.#headers.delete(keyOf(request));
  }

  /** Answers the challenges of a 401; undefined when we have nothing to answer with. */
  async answer(request: TokenRequest, challenges: readonly Challenge[]): Promise<string | undefined> {
    const { secret } = request;
    if (secret.kind === "registry") return undefined;
    const bearer = challenges.find((challenge) => challenge.scheme === "bearer");
    if (bearer !== undefined) {
      const { header, lifeMs } = await this.#fetchToken(request, bearer.params);
      this.#remember(request, header, lifeMs);
      return header;
    }
    if (secret.kind !== "password" || !challenges.some((challenge) => challenge.scheme === "basic")) return undefined;
    const header = basicHeader(secret.username, secret.password);
    this.#remember(request, header, Number.POSITIVE_INFINITY);
    return header;
  }

  #remember(request: TokenRequest, header: string, lifeMs: number): void {
    const oldest = this.#headers.size >= MAX_CACHED ? this.#headers.keys().next().value : undefined;
    if (oldest !== undefined) this.#headers.delete(oldest);
    this.#headers.set(keyOf(request), { header, expiresMs: Date.now() + lifeMs - MARGIN_MS });
  }

  async #fetchToken(request: TokenRequest, params: ReadonlyMap<string, string>): Promise<{ header: string; lifeMs: number }> {
    const { endpoint } = request;
    const realm = realmOf(params.get("realm") ?? "", endpoint);
    const scope = params.get("scope") ?? request.scope;
    const response = await this.#ask(request, realm, params.get("service"), scope);
    const body = await readBody(response, MAX_TOKEN_BYTES, realm.host);
    if (response.status !== 200) throw refused(realm.host, response.status);
    const parsed = tokenSchema.safeParse(parseJson(body));
    const token = parsed.data?.token ?? parsed.data?.access_token;
    if (token === undefined || token === "") throw responseError(realm.host, "the token server answered without a token");
    return { header: `Bearer ${token}`, lifeMs: Math.max(parsed.data?.expires_in ?? 0, DEFAULT_LIFE_S) * 1000 };
  }

  #ask(request: TokenRequest, realm: URL, service: string | undefined, scope: string): Promise<HttpResponse> {
    const { endpoint, secret, signal } = request;
    // The certificates are the registry's; a token server elsewhere has its own.
    const tls = realm.host === endpoint.host ? endpoint.tls : { skipVerify: endpoint.tls.skipVerify, ca: endpoint.tls.ca, client: [] };
    if (secret.kind === "identity") {
      const form = new URLSearchParams({ grant_type: "refresh_token", refresh_token: secret.token, client_id: "aurae-cri", scope });
      if (service !== undefined) form.set("service", service);
      const headers = { "content-type": "application/x-www-form-urlencoded" };
      return this.#transport.send({ method: "POST", url: realm, headers, body: form.toString(), tls, signal });
    }
    const url = new URL(realm);
    if (service !== undefined) url.searchParams.set("service", service);
    for (const item of scope.split(" ").filter((part) => part !== "")) url.searchParams.append("scope", item);
    if (secret.kind !== "password") return this.#transport.send({ method: "GET", url, headers: {}, tls, signal });
    const headers = { authorization: basicHeader(secret.username, secret.password) };
    return this.#transport.send({ method: "GET", url, headers, tls, signal });
  }
}

/** A registry on TLS may not send our credentials to a token server in plain text. */
function realmOf(text: string, endpoint: Endpoint): URL {
  const realm = URL.parse(text);
  if (realm === null || (realm.protocol !== "https:" && realm.protocol !== "http:")) {
    throw responseError(endpoint.host, "its challenge names no usable token server (realm)");
  }
  if (realm.protocol === "http:" && endpoint.base.startsWith("https:") && !isLoopback(realm.host)) {
    throw responseError(endpoint.host, `its token server ${realm.host} is not on https`);
  }
  return realm;
}

function keyOf({ endpoint, secret, scope }: TokenRequest): string {
  return createHash("sha256")
    .update(JSON.stringify([secret, endpoint.base, scope]))
    .digest("hex");
}

function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString("utf8"));
  } catch {
    return undefined;
  }
}

function refused(registry: string, status: number): ImageError {
  if (status === 429 || status >= 500) {
    return new ImageError({ code: "ERR_REGISTRY_UNAVAILABLE", registry, status }, `token server ${registry} answered ${status}`);
  }
  return new ImageError({ code: "ERR_REGISTRY_UNAUTHORIZED", registry }, `token server ${registry} refused the credentials (${status})`);
}

function responseError(registry: string, problem: string): ImageError {
  return new ImageError({ code: "ERR_REGISTRY_RESPONSE", registry }, `registry ${registry}: ${problem}`);
}
