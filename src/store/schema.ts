import type { DatabaseSync } from "node:sqlite";

/** "AURC": marks a file as ours in `PRAGMA application_id`. */
export const applicationId = 0x41555243;

/** Step `n` takes a database of schema version `n` to `n + 1`. Appended to, never changed: databases of every version are about. */
const migrations: readonly string[] = [
  `CREATE TABLE record (
     kind TEXT NOT NULL,
     id TEXT NOT NULL,
     value TEXT NOT NULL,
     PRIMARY KEY (kind, id)
   ) STRICT, WITHOUT ROWID`,
];

/** The version that this release writes. */
export const schemaVersion = migrations.length;

/** Brings the database to `schemaVersion`, in one transaction. */
export function migrate(db: DatabaseSync): void {
  const from = readPragma(db, "user_version");
  if (from >= schemaVersion) return;
  db.exec("BEGIN IMMEDIATE");
  for (const step of migrations.slice(from)) db.exec(step);
  db.exec(`PRAGMA application_id = ${applicationId}`);
  db.exec(`PRAGMA user_version = ${schemaVersion}`);
  db.exec("COMMIT");
}

export function readPragma(db: DatabaseSync, name: "user_version" | "application_id"): number {
  return Number(db.prepare(`PRAGMA ${name}`).get()?.[name]);
}

/** A file whose creation was cut short before its first transaction. */
export function isBlank(db: DatabaseSync): boolean {
  const tables = db.prepare("SELECT count(*) AS count FROM sqlite_schema").get();
  return Number(tables?.["count"]) === 0 && readPragma(db, "user_version") === 0;
}
