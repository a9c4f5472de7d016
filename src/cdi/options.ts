/** What the CDI room is told. */
export interface CdiOptions {
  /** Directories of specifications, the later ones before the earlier ones. Need not exist. */
  readonly specDirs: readonly string[];
}
