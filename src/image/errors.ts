import { CodedError } from "../lib/coded-error.ts";

/** What can go wrong with images. Messages name the reference, registry, digest or field, and the remedy where there is one. */
export type ImageFact =
  /** `part` is the piece of the reference that is wrong: `repository`, `tag`, … */
  | { readonly code: "ERR_INVALID_REFERENCE"; readonly part: string }
  /** No such image on this node. */
  | { readonly code: "ERR_IMAGE_NOT_FOUND"; readonly reference: string }
  | { readonly code: "ERR_AMBIGUOUS_REFERENCE"; readonly reference: string }
  /** The registry answered, and has no such manifest or blob. */
  | { readonly code: "ERR_REGISTRY_NOT_FOUND"; readonly registry: string }
  | { readonly code: "ERR_REGISTRY_UNAUTHORIZED"; readonly registry: string }
  /** No answer, or one that says "later" (429, 5xx), after all retries. `status` is 0 when there was none. */
  | { readonly code: "ERR_REGISTRY_UNAVAILABLE"; readonly registry: string; readonly status: number }
  /** The registry answered with what is not the distribution protocol, or with too much of it. */
  | { readonly code: "ERR_REGISTRY_RESPONSE"; readonly registry: string }
  | { readonly code: "ERR_HOSTS_TOML"; readonly file: string }
  | { readonly code: "ERR_DIGEST_MISMATCH"; readonly expected: string; readonly actual: string }
  | { readonly code: "ERR_MANIFEST"; readonly problem: string }
  | { readonly code: "ERR_UNSUPPORTED_MEDIA_TYPE"; readonly mediaType: string }
  | { readonly code: "ERR_NO_MATCHING_PLATFORM"; readonly platform: string }
  /** The layer is not a tar we can represent. */
  | { readonly code: "ERR_LAYER_MALFORMED"; readonly problem: string }
  | { readonly code: "ERR_LAYER_LIMIT"; readonly limit: string }
  | { readonly code: "ERR_NO_SPACE"; readonly path: string }
  | { readonly code: "ERR_IMAGE_IO"; readonly path: string; readonly errno: string }
  | { readonly code: "ERR_PULL_ABORTED"; readonly timedOut: boolean }
  | { readonly code: "ERR_IMAGES_CLOSED" };

export class ImageError extends CodedError<ImageFact> {}

export function malformed(problem: string): ImageError {
  return new ImageError({ code: "ERR_LAYER_MALFORMED", problem }, `layer: ${problem}`);
}

export function overLimit(limit: string, detail: string): ImageError {
  return new ImageError({ code: "ERR_LAYER_LIMIT", limit }, `layer: ${detail}`);
}

export function digestMismatch(what: string, expected: string, actual: string): ImageError {
  return new ImageError(
    { code: "ERR_DIGEST_MISMATCH", expected, actual },
    `${what} has digest ${actual}, not the ${expected} that was asked for`,
  );
}

/** A failed file operation as ours; anything else as it is. */
export function fromIo(error: unknown, path: string): unknown {
  if (!(error instanceof Error) || !("code" in error) || !("syscall" in error)) return error;
  const errno = String(error.code);
  if (errno === "ENOSPC" || errno === "EDQUOT") {
    return new ImageError({ code: "ERR_NO_SPACE", path }, `no space left for ${path}: remove images or enlarge the file system`, {
      cause: error,
    });
  }
  return new ImageError({ code: "ERR_IMAGE_IO", path, errno }, `${path}: ${error.message}`, { cause: error });
}
