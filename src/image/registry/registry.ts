import { sleep } from "../../lib/abort.ts";
import { backoffMs } from "../../lib/retry.ts";
import type { PullCredentials } from "../../runtime/ports.ts";
import { type Digest, isDigest, sha256Of } from "../digest.ts";
import { digestMismatch, ImageError } from "../errors.ts";
import { type Descriptor, MANIFEST_TYPES } from "../manifest.ts";
import { formatReference, type Reference } from "../reference.ts";
import { parseChallenges, type Secret, secretFor } from "./auth.ts";
import { type Capability, type Endpoint, isLoopback } from "./hosts.ts";
import type { Tokens } from "./tokens.ts";
import { abortedError, type HttpResponse, readBody, type Transport } from "./transport.ts";

export const MAX_DOCUMENT_BYTES = 4 << 20;
const MAX_REDIRECTS = 5;
/** A registry that says "later" for longer than this is as good as gone. */
const MAX_RETRY_AFTER_MS = 60_000;
/** A transfer that got this far since it last broke may break again without using up an attempt. */
const PROGRESS_BYTES = 1 << 20;

export interface RepositoryOptions {
  readonly attempts: number;
  readonly retryBaseMs: number;
  readonly retryMaxMs: number;
}

export interface FetchedManifest {
  readonly body: Buffer;
  readonly contentType: string;
  readonly digest: Digest;
}

interface Wait {
  readonly signal: AbortSignal;
}

type Method = "GET" | "HEAD";

interface Ask extends Wait {
  readonly method: Method;
  readonly headers: Readonly<Record<string, string>>;
  readonly authorization: string | undefined;
}

/** A failed answer that may be asked for again. */
interface Failure {
  readonly error: ImageError;
  readonly transient: boolean;
  readonly retryAfterMs: number;
}

class EndpointError extends Error {
  readonly failure: Failure;
  constructor(failure: Failure) {
    super(failure.error.message);
    this.failure = failure;
  }
}

/** One repository, at whichever of its endpoints answers, with the credentials of one pull. */
export class Repository {
  readonly #options: RepositoryOptions;
  readonly #reference: Reference;
  readonly #endpoints: readonly Endpoint[];
  readonly #credentials: PullCredentials | undefined;
  readonly #transport: Transport;
  readonly #tokens: Tokens;

  constructor(
    options: RepositoryOptions & {
      readonly reference: Reference;
      readonly endpoints: readonly Endpoint[];
      readonly credentials: PullCredentials | undefined;
    },
    modules: { readonly transport: Transport; readonly tokens: Tokens },
  ) {
    this.#options = options;
    this.#reference = options.reference;
    this.#endpoints = options.endpoints;
    this.#credentials = options.credentials;
    this.#transport = modules.transport;
    this.#tokens = modules.tokens;
  }

  /** The same without its mirrors; undefined when there are none. */
  withoutMirrors(): Repository | undefined {
    const endpoints = this.#endpoints.filter((endpoint) => endpoint.origin);
    if (endpoints.length === this.#endpoints.length) return undefined;
    const options = { ...this.#options, reference: this.#reference, endpoints, credentials: this.#credentials };
    return new Repository(options, { transport: this.#transport, tokens: this.#tokens });
  }

  /**
   * The digest that the reference names at the first endpoint that says so, without the document: registries count that as no pull.
   * Undefined where it cannot be learned this way.
   */
  async currentDigest({ signal }: Wait): Promise<Digest | undefined> {
    const name = this.#reference.kind === "tag" ? this.#reference.tag : this.#reference.digest;
    for (const endpoint of this.#endpoints.filter((candidate) => candidate.capabilities.includes("resolve"))) {
      try {
        const response = await this.#get(endpoint, `manifests/${name}`, { accept: MANIFEST_TYPES.join(", ") }, signal, "HEAD");
        await response.discard();
        const digest = response.header("docker-content-digest") ?? "";
        if (isDigest(digest)) return digest;
      } catch (error) {
        // The request for the document itself follows, and says what is wrong.
        if (signal.aborted || failureOf(error) === undefined) throw error;
      }
    }
    return undefined;
  }

  /** The document that the reference, or a digest out of an index, names. */
  manifest(digest: Digest | undefined, { signal }: Wait): Promise<FetchedManifest> {
    const wanted = digest ?? (this.#reference.kind === "digest" ? this.#reference.digest : undefined);
    const name = wanted ?? (this.#reference.kind === "tag" ? this.#reference.tag : "");
    return this.#anywhere(wanted === undefined ? "resolve" : "pull", signal, async (endpoint) => {
      const response = await this.#get(endpoint, `manifests/${name}`, { accept: MANIFEST_TYPES.join(", ") }, signal);
      const body = await readBody(response, MAX_DOCUMENT_BYTES, endpoint.host);
      const actual = sha256Of(body);
      if (wanted !== undefined && actual !== wanted)
        throw new EndpointError(permanent(digestMismatch(`manifest from ${endpoint.host}`, wanted, actual)));
      return { body, contentType: response.header("content-type") ?? "", digest: actual };
    });
  }

  /** A small blob, checked. */
  document(descriptor: Descriptor, { signal }: Wait): Promise<Buffer> {
    return this.#anywhere("pull", signal, async (endpoint) => {
      if (descriptor.sizeBytes > MAX_DOCUMENT_BYTES) throw tooLarge(endpoint, descriptor.sizeBytes);
      const response = await this.#get(endpoint, `blobs/${descriptor.digest}`, {}, signal);
      const body = await readBody(response, MAX_DOCUMENT_BYTES, endpoint.host);
      const actual = sha256Of(body);
      if (actual !== descriptor.digest)
        throw new EndpointError(permanent(digestMismatch(`blob from ${endpoint.host}`, descriptor.digest, actual)));
      return body;
    });
  }

  /** The bytes of a blob, unchecked; a transfer that breaks goes on where it stopped, at the same endpoint or the next. */
  async *blob(descriptor: Descriptor, { signal }: Wait): AsyncGenerator<Buffer> {
    let offset = 0;
    let lastBreak = 0;
    let failure: unknown = truncated(this.#reference.domain, descriptor, 0);
    for (let attempt = 1; attempt <= this.#options.attempts; attempt++) {
      if (attempt > 1) await this.#pause(attempt - 1, 0, signal);
      const body = await this.#anywhere("pull", signal, (endpoint) => this.#blobFrom(endpoint, descriptor, offset, signal), attempt - 1);
      try {
        for await (const chunk of body) {
          offset += chunk.length;
          if (offset > descriptor.sizeBytes) throw moreThanSaid(this.#reference.domain, descriptor);
          yield chunk;
        }
        if (offset === descriptor.sizeBytes) return;
        failure = truncated(this.#reference.domain, descriptor, offset);
      } catch (error) {
        if (!isTransient(error)) throw error;
        failure = error;
      }
      if (offset - lastBreak >= PROGRESS_BYTES) attempt = 0;
      lastBreak = offset;
    }
    throw failure;
  }

  async #blobFrom(endpoint: Endpoint, descriptor: Descriptor, offset: number, signal: AbortSignal): Promise<AsyncGenerator<Buffer>> {
    const headers: Record<string, string> = offset === 0 ? {} : { range: `bytes=${offset}-` };
    const response = await this.#get(endpoint, `blobs/${descriptor.digest}`, headers, signal);
    if (response.status !== 206) return skipFirst(response.body(), offset);
    const start = Number(/^bytes (\d+)-/.exec(response.header("content-range") ?? "")?.[1] ?? Number.NaN);
    if (start === offset) return response.body();
    await response.discard();
    throw new EndpointError(permanent(responseError(endpoint.host, "it answered a range request with another range")));
  }

  /** Tries the endpoints in turn, and all again with growing pauses. Unless `first` begins elsewhere, the last word is the registry's own. */
  async #anywhere<T>(capability: Capability, signal: AbortSignal, task: (endpoint: Endpoint) => Promise<T>, first = 0): Promise<T> {
    const able = this.#endpoints.filter((endpoint) => endpoint.capabilities.includes(capability));
    const turn = able.length === 0 ? 0 : first % able.length;
    const candidates = new Set([...able.slice(turn), ...able.slice(0, turn)]);
    let last = new ImageError(
      { code: "ERR_REGISTRY_UNAVAILABLE", registry: this.#reference.domain, status: 0 },
      `registry ${this.#reference.domain}: no host with the capability '${capability}' is configured in hosts.toml`,
    );
    for (let attempt = 1; ; attempt++) {
      let longestMs = 0;
      for (const endpoint of [...candidates]) {
        if (signal.aborted) throw abortedError(signal);
        try {
          return await task(endpoint);
        } catch (error) {
          const failure = failureOf(error);
          if (failure === undefined) throw error;
          last = failure.error;
          longestMs = Math.max(longestMs, failure.retryAfterMs);
          if (!failure.transient) candidates.delete(endpoint);
        }
      }
      if (candidates.size === 0 || attempt >= this.#options.attempts || longestMs > MAX_RETRY_AFTER_MS) throw last;
      await this.#pause(attempt, longestMs, signal);
    }
  }

  async #pause(attempt: number, atLeastMs: number, signal: AbortSignal): Promise<void> {
    const { retryBaseMs, retryMaxMs } = this.#options;
    try {
      await sleep(Math.max(atLeastMs, backoffMs(attempt, { baseMs: retryBaseMs, maxMs: retryMaxMs })), signal);
    } catch (error) {
      throw signal.aborted ? abortedError(signal) : error;
    }
  }

  /** A successful answer, after authentication and redirects. */
  async #get(
    endpoint: Endpoint,
    path: string,
    headers: Record<string, string>,
    signal: AbortSignal,
    method: Method = "GET",
  ): Promise<HttpResponse> {
    const url = new URL(`${endpoint.base}/${this.#reference.path}/${path}`);
    if (!endpoint.origin) url.searchParams.set("ns", this.#reference.domain);
    const secret: Secret = secretFor(endpoint, this.#reference.domain, this.#credentials);
    const token = { endpoint, secret, scope: `repository:${this.#reference.path}:pull`, signal };
    const known = this.#tokens.known(token);
    const first = await this.#follow(endpoint, url, { method, headers, authorization: known, signal });
    let { response } = first;
    // Only the registry's own challenge is answered, not that of a host it redirected to.
    if (response.status === 401 && first.url.origin === url.origin) {
      await response.discard();
      this.#tokens.forget(token);
      const answer = await this.#tokens.answer(token, parseChallenges(response.header("www-authenticate") ?? ""));
      if (answer !== undefined) ({ response } = await this.#follow(endpoint, url, { method, headers, authorization: answer, signal }));
    }
    if (response.status === 200 || response.status === 206) return response;
    await response.discard();
    throw new EndpointError(failedAnswer(response, endpoint, this.#reference));
  }

  async #follow(endpoint: Endpoint, start: URL, ask: Ask): Promise<{ readonly response: HttpResponse; readonly url: URL }> {
    const { method, authorization, signal } = ask;
    let url = start;
    let own: Record<string, string> = { ...endpoint.headers, ...(authorization === undefined ? {} : { authorization }) };
    let tls = endpoint.tls;
    for (let hop = 0; ; hop++) {
      const response = await this.#transport.send({ method, url, headers: { ...own, ...ask.headers }, tls, signal });
      const location = [301, 302, 303, 307, 308].includes(response.status) ? response.header("location") : undefined;
      if (location === undefined) return { response, url };
      await response.discard();
      const next = URL.parse(location, url.href);
      if (next === null || hop >= MAX_REDIRECTS)
        throw new EndpointError(permanent(responseError(endpoint.host, "it redirects without end or to nowhere")));
      if (next.protocol !== "https:" && (next.protocol !== "http:" || (url.protocol === "https:" && !isLoopback(next.host)))) {
        throw new EndpointError(permanent(responseError(endpoint.host, `it redirects from ${url.protocol} to ${next.protocol}`)));
      }
      if (next.origin !== url.origin) {
        // Another host is another party: neither credentials nor configured headers nor client certificates are its business.
        own = {};
        tls = { ...tls, client: [] };
      }
      url = next;
    }
  }
}

function failedAnswer(response: HttpResponse, endpoint: Endpoint, reference: Reference): Failure {
  const name = formatReference(reference);
  const { status } = response;
  const registry = endpoint.host;
  if (status === 404) {
    return permanent(new ImageError({ code: "ERR_REGISTRY_NOT_FOUND", registry }, `${name}: not found at ${registry}`));
  }
  if (status === 401 || status === 403) {
    const message = `${name}: ${registry} refuses access (${status}): it does not exist, or needs other credentials`;
    return permanent(new ImageError({ code: "ERR_REGISTRY_UNAUTHORIZED", registry }, message));
  }
  const transient = status === 408 || status === 429 || status >= 500;
  const error = transient
    ? new ImageError({ code: "ERR_REGISTRY_UNAVAILABLE", registry, status }, `${name}: ${registry} answered ${status}`)
    : responseError(registry, `it answered ${status}`);
  return { error, transient, retryAfterMs: retryAfterMs(response.header("retry-after")) };
}

/** Seconds or a date. */
function retryAfterMs(value: string | undefined): number {
  if (value === undefined) return 0;
  const waitMs = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(waitMs) ? Math.max(0, waitMs) : 0;
}

/** What another endpoint or another attempt might answer better; undefined for what ends the pull. */
function failureOf(error: unknown): Failure | undefined {
  if (error instanceof EndpointError) return error.failure;
  if (!(error instanceof ImageError) || error.fact.code === "ERR_PULL_ABORTED") return undefined;
  return { error, transient: isTransient(error), retryAfterMs: 0 };
}

function isTransient(error: unknown): boolean {
  return error instanceof ImageError && error.fact.code === "ERR_REGISTRY_UNAVAILABLE";
}

function permanent(error: ImageError): Failure {
  return { error, transient: false, retryAfterMs: 0 };
}

async function* skipFirst(body: AsyncGenerator<Buffer>, sizeBytes: number): AsyncGenerator<Buffer> {
  let rest = sizeBytes;
  for await (const chunk of body) {
    const skipped = Math.min(rest, chunk.length);
    rest -= skipped;
    if (skipped < chunk.length) yield chunk.subarray(skipped);
  }
}

function tooLarge({ host }: Endpoint, sizeBytes: number): EndpointError {
  return new EndpointError(
    permanent(responseError(host, `an image config of ${sizeBytes} bytes is refused, the limit is ${MAX_DOCUMENT_BYTES}`)),
  );
}

function moreThanSaid(registry: string, { digest, sizeBytes }: Descriptor): ImageError {
  return responseError(registry, `blob ${digest} is longer than the ${sizeBytes} bytes of its manifest`);
}

function truncated(registry: string, { digest, sizeBytes }: Descriptor, offset: number): ImageError {
  const message = `registry ${registry}: blob ${digest} broke off at ${offset} of ${sizeBytes} bytes, again and again`;
  return new ImageError({ code: "ERR_REGISTRY_UNAVAILABLE", registry, status: 0 }, message);
}

function responseError(registry: string, problem: string): ImageError {
  return new ImageError({ code: "ERR_REGISTRY_RESPONSE", registry }, `registry ${registry}: ${problem}`);
}
