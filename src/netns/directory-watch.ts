import { type FSWatcher, statSync, watch } from "node:fs";

/**
 * Calls back when something in a directory changes. The directory may be missing or be replaced by another: `refresh`, called now and
 * then, notices, and tells whether it had to look anew.
 */
export class DirectoryWatch implements Disposable {
  readonly #directory: string;
  readonly #onChange: () => void;
  #watched: { readonly identity: string; readonly watcher: FSWatcher } | undefined;

  constructor(directory: string, onChange: () => void) {
    this.#directory = directory;
    this.#onChange = onChange;
  }

  refresh(): void {
    const identity = identityOf(this.#directory);
    if (identity === this.#watched?.identity) return;
    this.#drop();
    if (identity === undefined) return;
    try {
      const watcher = watch(this.#directory, { persistent: false }, () => this.#onChange());
      // Out of inotify watches, say: the next refresh tries again, and whoever polls sees the change anyway.
      watcher.on("error", () => this.#drop());
      this.#watched = { identity, watcher };
    } catch {
      this.#drop();
    }
  }

  [Symbol.dispose](): void {
    this.#drop();
  }

  #drop(): void {
    this.#watched?.watcher.close();
    this.#watched = undefined;
  }
}

function identityOf(directory: string): string | undefined {
  const entry = statSync(directory, { throwIfNoEntry: false });
  return entry?.isDirectory() ? `${entry.dev}:${entry.ino}` : undefined;
}
