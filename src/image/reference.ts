import { type Digest, isDigest } from "./digest.ts";
import { ImageError } from "./errors.ts";

/** A complete image reference. With a digest there is no tag: the digest wins. */
export type Reference = {
  /** Registry host with its port, as references spell it: `docker.io`, `127.0.0.1:5000`. */
  readonly domain: string;
  /** Path below the registry: `library/busybox`. */
  readonly path: string;
  /** `domain/path`. */
  readonly repository: string;
} & ({ readonly kind: "tag"; readonly tag: string } | { readonly kind: "digest"; readonly digest: Digest });

/** A reference as records and CRI spell it: `docker.io/library/busybox:latest`. */
export type ReferenceName = string & { readonly __referenceName: true };

const MAX_REPOSITORY = 255;
const domainPattern =
  /^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$/;
const componentPattern = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;

/** Reads any form a user may write: `busybox`, `busybox:1`, `host:5000/a/b@sha256:…`. Throws `ERR_INVALID_REFERENCE`. */
export function parseReference(text: string): Reference {
  if (text === "") throw invalid("reference", text, "is empty");
  if (/^[0-9a-f]{64}$/.test(text)) throw invalid("repository", text, "looks like an image id; write a name");
  const at = text.indexOf("@");
  const named = at === -1 ? text : text.slice(0, at);
  const digest = at === -1 ? undefined : parseDigest(text, text.slice(at + 1));
  const colon = named.lastIndexOf(":");
  const hasTag = colon > named.lastIndexOf("/");
  const tag = hasTag ? named.slice(colon + 1) : "latest";
  if (!tagPattern.test(tag)) throw invalid("tag", text, "must be 1 to 128 letters, digits, '_', '.' or '-', and not begin with '.' or '-'");
  const { domain, path } = splitDomain(hasTag ? named.slice(0, colon) : named);
  checkRepository(text, domain, path);
  const name = { domain, path, repository: `${domain}/${path}` };
  return digest === undefined ? { ...name, kind: "tag", tag } : { ...name, kind: "digest", digest };
}

/** The canonical spelling. */
export function formatReference(reference: Reference): ReferenceName {
  const end = reference.kind === "tag" ? `:${reference.tag}` : `@${reference.digest}`;
  return `${reference.repository}${end}` as ReferenceName;
}

/** What stands before the first slash is a registry when it could not be anything else: a dot, a port, `localhost`, or upper case. */
function splitDomain(name: string): { readonly domain: string; readonly path: string } {
  const slash = name.indexOf("/");
  const first = name.slice(0, slash);
  const isDomain = slash !== -1 && (/[.:]/.test(first) || first === "localhost" || first.toLowerCase() !== first);
  const domain = isDomain ? first : "docker.io";
  const path = isDomain ? name.slice(slash + 1) : name;
  if (domain !== "docker.io" && domain !== "index.docker.io") return { domain, path };
  return { domain: "docker.io", path: path.includes("/") ? path : `library/${path}` };
}

function checkRepository(text: string, domain: string, path: string): void {
  if (!domainPattern.test(domain)) throw invalid("registry", text, `'${domain}' is not a host name with an optional port`);
  const port = /:(\d+)$/.exec(domain)?.[1];
  if (port !== undefined && Number(port) > 65_535) throw invalid("registry", text, `port ${port} is out of range`);
  if (path === "" || path === "library/") throw invalid("repository", text, "has no repository name");
  const wrong = path.split("/").find((component) => !componentPattern.test(component));
  if (wrong !== undefined) {
    const why =
      wrong.toLowerCase() === wrong
        ? "must be lower-case letters and digits with single '.', '_', '__' or dashes between"
        : "must be lower case";
    throw invalid("repository", text, `the component '${wrong}' ${why}`);
  }
  if (`${domain}/${path}`.length > MAX_REPOSITORY) throw invalid("repository", text, `is longer than ${MAX_REPOSITORY} characters`);
}

function parseDigest(text: string, digest: string): Digest {
  if (isDigest(digest)) return digest;
  if (/^sha(384|512):/.test(digest)) throw invalid("digest", text, "only sha256 digests are supported");
  throw invalid("digest", text, "must be 'sha256:' and 64 lower-case hex characters");
}

function invalid(part: string, text: string, problem: string): ImageError {
  return new ImageError(
    { code: "ERR_INVALID_REFERENCE", part },
    `image reference ${JSON.stringify(text.slice(0, 300))}: ${part}: ${problem}`,
  );
}
