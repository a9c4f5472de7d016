interface Wait {
  readonly signal: AbortSignal;
}

/** What the image room asks of the host to show a layer. */
export interface LayerMounter {
  /** Mounts an EROFS blob read-only at an existing, empty directory. */
  mount(blob: string, target: string, options: Wait): Promise<void>;
  /** Nothing mounted there is success. */
  unmount(target: string, options: Wait): Promise<void>;
  /** The mount points right below `dir`. */
  mounted(dir: string): Promise<readonly string[]>;
}
