import { X509Certificate } from "node:crypto";
import { unwatchFile, watchFile } from "node:fs";
import { readFile } from "node:fs/promises";
import { createSecureContext } from "node:tls";

import { messageOf } from "../lib/coded-error.ts";
import type { Log } from "../lib/log.ts";
import { StreamingError } from "./errors.ts";
import type { TlsFiles } from "./options.ts";

/** Looked at by name and not by inotify: mounted secrets and renewed certificates are links that lead elsewhere afterwards. */
const LOOK_INTERVAL_MS = 2_000;

/** PEM, and known to belong together. */
export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

/** Throws `ERR_TLS_FILES`, which names the file and its key of the configuration. */
export async function readKeyPair({ certFile, keyFile }: TlsFiles): Promise<KeyPair> {
  const cert = await readPem("streaming.tls_cert_file", certFile);
  const key = await readPem("streaming.tls_key_file", keyFile);
  try {
    createSecureContext({ cert, key });
  } catch (error) {
    throw tlsError(certFile, `streaming.tls_cert_file ${certFile} and streaming.tls_key_file ${keyFile} do not make a pair`, error);
  }
  return { cert, key };
}

/** Gives each new pair that the files hold. One that is bad is logged, and whoever has the last good pair keeps it. */
export class KeyPairWatch implements Disposable {
  readonly #files: TlsFiles;
  readonly #log: Log;
  readonly #onChange: (pair: KeyPair) => void;
  readonly #look = (): void => void (this.#looking = this.#looking.then(() => this.#read()));
  #looking: Promise<void> = Promise.resolve();
  #current: KeyPair;

  constructor(files: TlsFiles, current: KeyPair, modules: { readonly log: Log; readonly onChange: (pair: KeyPair) => void }) {
    this.#files = files;
    this.#current = current;
    this.#log = modules.log;
    this.#onChange = modules.onChange;
    for (const path of [files.certFile, files.keyFile]) watchFile(path, { interval: LOOK_INTERVAL_MS, persistent: false }, this.#look);
  }

  async #read(): Promise<void> {
    try {
      const pair = await readKeyPair(this.#files);
      if (pair.cert === this.#current.cert && pair.key === this.#current.key) return;
      this.#current = pair;
      this.#onChange(pair);
      this.#log.info("streaming: serving a new TLS certificate", describe(pair));
    } catch (error) {
      this.#log.error("streaming: the new TLS certificate cannot be used, the old one stays", describe(this.#current), error);
    }
  }

  [Symbol.dispose](): void {
    for (const path of [this.#files.certFile, this.#files.keyFile]) unwatchFile(path, this.#look);
  }
}

/** For the log. */
export function describe({ cert }: KeyPair): { readonly subject: string; readonly validTo: string } {
  const { subject, validTo } = new X509Certificate(cert);
  return { subject: subject ?? "", validTo };
}

async function readPem(key: string, path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw tlsError(path, `${key}: cannot read ${path}`, error);
  }
}

function tlsError(path: string, what: string, cause: unknown): StreamingError {
  return new StreamingError({ code: "ERR_TLS_FILES", path }, `${what} (${messageOf(cause)}): give the PEM files of one certificate`, {
    cause,
  });
}
