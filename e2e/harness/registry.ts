import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { terminate } from "./command.ts";
import type { PublishedImage } from "./images.ts";
import { standardImages } from "./images.ts";
import type { Blob } from "./oci-image.ts";
import { freePort } from "./ports.ts";
import { childEnvironment } from "./settings.ts";
import { waitFor } from "./wait.ts";

/** The one account of a private registry. The hash is of this password: the registry reads bcrypt only. */
export const privateAccount = {
  username: "tester",
  password: "open-sesame",
  hash: "$2b$05$auraecrie2eregistry1uuQCm1cEdUS6jUCbED53s1LQW/Wlg9h/6",
} as const;

/** A real docker-registry on an ephemeral loopback port. */
export class Registry implements AsyncDisposable {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  readonly #child: ChildProcess;
  readonly #dir: string;
  readonly #authorization: Readonly<Record<string, string>>;
  readonly #published = new Map<string, PublishedImage>();
  /** The repository that each blob was uploaded to first. */
  readonly #uploaded = new Map<string, string>();

  private constructor(host: string, child: ChildProcess, dir: string, isPrivate: boolean) {
    this.host = host;
    this.#child = child;
    this.#dir = dir;
    const basic = Buffer.from(`${privateAccount.username}:${privateAccount.password}`).toString("base64");
    this.#authorization = isPrivate ? { authorization: `Basic ${basic}` } : {};
  }

  /** Starts a registry that holds the standard images. */
  static async start(options: { readonly private?: boolean } = {}): Promise<Registry> {
    const dir = await mkdtemp(join(tmpdir(), "ae2e-registry-"));
    const host = `127.0.0.1:${await freePort()}`;
    const isPrivate = options.private ?? false;
    await writeFile(join(dir, "htpasswd"), `${privateAccount.username}:${privateAccount.hash}\n`);
    await writeFile(join(dir, "config.json"), JSON.stringify(configuration(dir, host, isPrivate)));
    const child = spawn("docker-registry", ["serve", join(dir, "config.json")], {
      stdio: "ignore",
      env: childEnvironment({ OTEL_TRACES_EXPORTER: "none" }),
    });
    const registry = new Registry(host, child, dir, isPrivate);
    try {
      await waitFor(`the registry on ${host}`, async () => (await fetch(`http://${host}/v2/`)).status !== 503);
      for (const image of await standardImages()) await registry.publish(image);
    } catch (error) {
      await registry[Symbol.asyncDispose]();
      throw error;
    }
    return registry;
  }

  /** `127.0.0.1:PORT/name:1`. */
  reference(name: string): string {
    return `${this.host}/${name}:${this.image(name).tag}`;
  }

  image(name: string): PublishedImage {
    const image = this.#published.get(name);
    if (image === undefined) throw new Error(`the registry holds no image '${name}'`);
    return image;
  }

  /** Pushes an image that `reference` then knows by its name. */
  async publish(image: PublishedImage): Promise<void> {
    await this.push(image);
    this.#published.set(image.name, image);
  }

  /** Pushes an image of which several tags or a standard image of the same name may exist. */
  async push(image: PublishedImage): Promise<void> {
    for (const built of image.images) {
      for (const blob of built.blobs) await this.#upload(image.name, blob);
      await this.#putManifest(image.name, built.manifest.digest, built.mediaType, built.manifest.bytes);
    }
    await this.#putManifest(image.name, image.tag, image.mediaType, image.manifest.bytes);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await terminate(this.#child);
    await rm(this.#dir, { recursive: true, force: true });
  }

  /** A blob that the registry has already is only linked to the repository. */
  async #upload(name: string, { digest, bytes }: Blob): Promise<void> {
    const from = this.#uploaded.get(digest);
    const query = from === undefined ? "" : `?${new URLSearchParams({ mount: digest, from }).toString()}`;
    const begun = await fetch(`http://${this.host}/v2/${name}/blobs/uploads/${query}`, { method: "POST", headers: this.#authorization });
    if (begun.status === 201) return;
    this.#uploaded.set(digest, name);
    const location = new URL(begun.headers.get("location") ?? "", `http://${this.host}`);
    location.searchParams.set("digest", digest);
    await expectCreated(location, {
      method: "PUT",
      body: new Uint8Array(bytes),
      headers: { ...this.#authorization, "content-type": "application/octet-stream" },
    });
  }

  async #putManifest(name: string, reference: string, mediaType: string, bytes: Buffer): Promise<void> {
    const url = new URL(`http://${this.host}/v2/${name}/manifests/${reference}`);
    await expectCreated(url, {
      method: "PUT",
      body: new Uint8Array(bytes),
      headers: { ...this.#authorization, "content-type": mediaType },
    });
  }
}

async function expectCreated(url: URL, init: RequestInit): Promise<void> {
  const response = await fetch(url, init);
  if (response.status !== 201) throw new Error(`${init.method} ${url.href}: ${response.status} ${await response.text()}`);
}

function configuration(dir: string, host: string, isPrivate: boolean) {
  return {
    version: "0.1",
    log: { level: "error", accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(dir, "data") }, delete: { enabled: true } },
    http: { addr: host },
    ...(isPrivate ? { auth: { htpasswd: { realm: "aurae-cri tests", path: join(dir, "htpasswd") } } } : {}),
  };
}
