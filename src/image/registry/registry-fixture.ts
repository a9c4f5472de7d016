import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";

import { type Digest, sha256Of } from "../digest.ts";
import { type FixtureEntry, tarOf } from "../layers/tar-fixture.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../manifest.ts";

export interface FixtureImage {
  readonly id: Digest;
  readonly manifestDigest: Digest;
  readonly layers: readonly { readonly digest: Digest; readonly diffId: Digest; readonly bytes: Buffer }[];
}

export interface FixtureImageOptions {
  readonly layers: readonly (readonly FixtureEntry[])[];
  readonly config?: Readonly<Record<string, unknown>>;
  readonly architecture?: string;
  /** Instead of the real ones. */
  readonly diffIds?: readonly string[];
}

/** A registry in memory, for tests, which counts what is asked of it. */
export class RegistryFixture implements AsyncDisposable {
  readonly #server = createServer((request, response) => this.#answer(request, response));
  readonly #blobs = new Map<string, Buffer>();
  /** By `repository:tag` and `repository@digest`. */
  readonly #manifests = new Map<string, { readonly body: Buffer; readonly type: string }>();
  readonly requests: string[] = [];
  /** When set, answers instead; true when it did. */
  intercept: ((request: IncomingMessage, response: ServerResponse) => boolean) | undefined;

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  count(part: string): number {
    return this.requests.filter((url) => url.includes(part)).length;
  }

  /** Stores an image under a repository; with a tag when one is given. */
  push(repository: string, tag: string | undefined, options: FixtureImageOptions): FixtureImage {
    const layers = options.layers.map((entries) => {
      const tar = tarOf(entries);
      const bytes = gzipSync(tar);
      return { digest: this.blob(bytes), diffId: sha256Of(tar), bytes };
    });
    const config = Buffer.from(
      JSON.stringify({
        architecture: options.architecture ?? "amd64",
        os: "linux",
        config: options.config ?? {},
        rootfs: { type: "layers", diff_ids: options.diffIds ?? layers.map((layer) => layer.diffId) },
      }),
    );
    const id = this.blob(config);
    const type = "application/vnd.oci.image.layer.v1.tar+gzip";
    const manifestDigest = this.manifest(repository, tag, {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: id, size: config.length },
      layers: layers.map((layer) => ({ mediaType: type, digest: layer.digest, size: layer.bytes.length })),
    });
    return { id, manifestDigest, layers };
  }

  /** An index over images that were pushed to the same repository. */
  index(
    repository: string,
    tag: string,
    images: readonly { readonly image: FixtureImage; readonly platform: Readonly<Record<string, string>> }[],
  ): Digest {
    const manifests = images.map(({ image, platform }) => ({ mediaType: OCI_MANIFEST, digest: image.manifestDigest, size: 1, platform }));
    return this.manifest(repository, tag, { schemaVersion: 2, mediaType: OCI_INDEX, manifests });
  }

  manifest(
    repository: string,
    tag: string | undefined,
    document: Readonly<Record<string, unknown>> & { readonly mediaType?: string },
  ): Digest {
    const body = Buffer.from(JSON.stringify(document));
    const digest = sha256Of(body);
    const stored = { body, type: document.mediaType ?? OCI_MANIFEST };
    this.#manifests.set(`${repository}/${digest}`, stored);
    if (tag !== undefined) this.#manifests.set(`${repository}/${tag}`, stored);
    return digest;
  }

  blob(bytes: Buffer): Digest {
    const digest = sha256Of(bytes);
    this.#blobs.set(digest, bytes);
    return digest;
  }

  /** The next reads of a blob get these bytes. */
  corrupt(digest: Digest, bytes: Buffer): void {
    this.#blobs.set(digest, bytes);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = new URL(request.url ?? "", "http://registry").pathname;
    this.requests.push(request.method === "HEAD" ? `HEAD ${path}` : path);
    if (this.intercept?.(request, response)) return;
    const [, repository = "", kind, name = ""] = /^\/v2\/(.+)\/(manifests|blobs)\/([^/]+)$/.exec(path) ?? [];
    const found =
      kind === "manifests"
        ? this.#manifests.get(`${repository}/${name}`)
        : { body: this.#blobs.get(name), type: "application/octet-stream" };
    if (found?.body === undefined) response.writeHead(404).end();
    else
      response
        .writeHead(200, { "content-type": found.type, "docker-content-digest": sha256Of(found.body), "content-length": found.body.length })
        .end(found.body);
  }
}
